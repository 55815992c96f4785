MODEL (
  name bronze.companies,
  kind SEED (
    path '$root/seeds/companies.csv'
  ),
  description 'The companies that the platform follows, one a symbol as first polled',
  columns (
    symbol VARCHAR,
    name_en VARCHAR,
    name_ar VARCHAR,
    sector VARCHAR,
    isin VARCHAR,
    currency VARCHAR,
    status VARCHAR,
    status_since VARCHAR,
    note VARCHAR
  ),
  grain (
    symbol
  ),
  audits (
    rows_are_told_apart(key := (
      symbol
    ), given := (
      symbol
    ))
  )
)
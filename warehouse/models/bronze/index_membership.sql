MODEL (
  name bronze.index_membership,
  kind SEED (
    path '$root/seeds/index_membership.csv'
  ),
  description 'Membership in EGX30 and EGX70: first and last day, empty where not known or still so',
  columns (
    index_name VARCHAR,
    symbol VARCHAR,
    valid_from DATE,
    valid_to DATE,
    source VARCHAR
  ),
  grain (index_name, symbol, valid_from),
  audits (
    rows_are_told_apart(key := (index_name, symbol, valid_from), given := (index_name, symbol))
  )
)
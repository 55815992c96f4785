MODEL (
  name bronze.exchange_closures,
  kind SEED (
    path '$root/seeds/exchange_closures.csv'
  ),
  description 'Sundays to Thursdays without trading',
  columns (
    date DATE,
    reason VARCHAR,
    source VARCHAR
  ),
  grain (
    date
  ),
  audits (
    unique_combination_of_columns(columns := (
      date
    )),
    not_null(columns := (
      date
    ))
  )
)
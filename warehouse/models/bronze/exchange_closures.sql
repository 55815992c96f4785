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
    rows_are_told_apart(key := (
      date
    ), given := (
      date
    ))
  )
)
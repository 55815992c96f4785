MODEL (
  name bronze.exchange_closures_expected,
  kind SEED (
    path '$root/seeds/exchange_closures_expected.csv'
  ),
  description 'Closures where nobody has observed them: by rule, made by `just calendar-seed`',
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
MODEL (
  name bronze.exchange_open_holidays,
  kind SEED (
    path '$root/seeds/exchange_open_holidays.csv'
  ),
  description 'Public holidays on which the exchange traded all the same',
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
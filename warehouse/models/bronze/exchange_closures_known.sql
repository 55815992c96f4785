MODEL (
  name bronze.exchange_closures_known,
  kind SEED (
    path '$root/seeds/exchange_closures_known.csv'
  ),
  description 'Periods of which exchange_closures has every closure',
  columns (
    valid_from DATE,
    valid_to DATE,
    source VARCHAR
  ),
  grain (
    valid_from
  ),
  audits (
    rows_are_told_apart(key := (
      valid_from
    ), given := (
      valid_from
    ))
  )
)
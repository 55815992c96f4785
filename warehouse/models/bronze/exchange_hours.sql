MODEL (
  name bronze.exchange_hours,
  kind SEED (
    path '$root/seeds/exchange_hours.csv'
  ),
  description 'Session hours, Africa/Cairo; a day under a ramadan row has no regular one; no valid_to: still so',
  columns (
    valid_from DATE,
    valid_to DATE,
    kind VARCHAR,
    open VARCHAR,
    close_continuous VARCHAR,
    auction_end VARCHAR,
    close VARCHAR,
    source VARCHAR
  ),
  grain (kind, valid_from),
  audits (
    unique_combination_of_columns(columns := (kind, valid_from)),
    not_null(columns := (kind, valid_from))
  )
)
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
    rows_are_told_apart(key := (kind, valid_from), given := (kind, valid_from))
  )
)
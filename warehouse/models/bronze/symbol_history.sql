MODEL (
  name bronze.symbol_history,
  kind SEED (
    path '$root/seeds/symbol_history.csv'
  ),
  description 'Renamed symbols: every old symbol with the one it trades under now',
  columns (
    old_symbol VARCHAR,
    new_symbol VARCHAR,
    renamed_on DATE,
    company VARCHAR,
    isin VARCHAR,
    currency VARCHAR,
    source VARCHAR
  ),
  grain (
    old_symbol
  ),
  audits (
    rows_are_told_apart(key := (
      old_symbol
    ), given := (
      old_symbol
    ))
  )
)
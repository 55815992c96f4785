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
    unique_combination_of_columns(columns := (
      old_symbol
    )),
    not_null(columns := (
      old_symbol
    ))
  )
)
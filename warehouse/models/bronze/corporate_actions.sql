MODEL (
  name bronze.corporate_actions,
  kind SEED (
    path '$root/seeds/corporate_actions.csv'
  ),
  description 'Splits and bonus issues: ratio is new shares for one old share',
  columns (
    symbol VARCHAR,
    ex_date DATE,
    kind VARCHAR,
    ratio DOUBLE,
    source VARCHAR
  ),
  grain (symbol, ex_date, kind),
  audits (
    rows_are_told_apart(key := (symbol, ex_date, kind), given := (symbol, ex_date, kind))
  )
)
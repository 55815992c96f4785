MODEL (
  name bronze.index_membership,
  kind SEED (
    path '$root/seeds/index_membership.csv'
  ),
  description 'Membership in EGX30 and EGX70: first and last day, empty where not known or still so',
  columns (
    index_name VARCHAR,
    symbol VARCHAR,
    valid_from DATE,
    valid_to DATE,
    source VARCHAR
  ),
  grain (index_name, symbol, valid_from),
  audits (
    unique_combination_of_columns(columns := (index_name, symbol, valid_from)),
    not_null(columns := (index_name, symbol))
  )
)
MODEL (
  name gold.dim_stock,
  kind FULL,
  description 'One row per company line: the followed ones and any other that has traded, under the symbol of today.',
  column_descriptions (
    symbol = 'Symbol it trades under now',
    former_symbols = 'Symbols it traded under before',
    listing_status = 'listed or delisted, unknown where it is not among the followed companies',
    index_membership = 'Index memberships with the days on record'
  ),
  grain symbol,
  audits (
    rows_are_told_apart(key := (
      symbol
    ), given := (symbol, company_name))
  )
);

WITH renamed AS (
  SELECT
    new_symbol AS symbol,
    MAX(company) AS company,
    MAX(isin) AS isin,
    MAX(currency) AS currency,
    LISTAGG(old_symbol, ', ') WITHIN GROUP (ORDER BY
      old_symbol) AS former_symbols
  FROM bronze.symbol_history
  GROUP BY
    new_symbol
), traded AS (
  SELECT
    symbol,
    MIN(trade_date) AS first_trade_date,
    MAX(trade_date) AS last_trade_date,
    COUNT(*) AS trading_days
  FROM silver.stock_prices_daily
  GROUP BY
    symbol
), followed AS (
  SELECT
    COALESCE(r.new_symbol, c.symbol) AS symbol
  FROM bronze.companies AS c
  LEFT JOIN bronze.symbol_history AS r
    ON c.symbol = r.old_symbol
), symbols AS (
  SELECT
    symbol
  FROM followed
  UNION
  SELECT
    symbol
  FROM traded
), memberships AS (
  SELECT
    COALESCE(r.new_symbol, m.symbol) AS symbol,
    LISTAGG(
      
        m.index_name || IFF(m.valid_from IS NULL, '', ' from ' || m.valid_from::VARCHAR) || IFF(m.valid_to IS NULL, '', ' to ' || m.valid_to::VARCHAR),
        '; '
      
    ) WITHIN GROUP (ORDER BY
      m.index_name,
      m.valid_from) AS index_membership,
    MAX(IFF(m.valid_to IS NULL, m.index_name, NULL)) AS current_index
  FROM bronze.index_membership AS m
  LEFT JOIN bronze.symbol_history AS r
    ON m.symbol = r.old_symbol
  GROUP BY
    COALESCE(r.new_symbol, m.symbol)
)
SELECT
  s.symbol::VARCHAR AS symbol,
  r.former_symbols::VARCHAR AS former_symbols,
  COALESCE(c.name_en, s.symbol)::VARCHAR AS company_name,
  c.name_ar::VARCHAR AS company_name_ar,
  c.sector::VARCHAR AS sector,
  COALESCE(r.isin, c.isin)::VARCHAR AS isin,
  COALESCE(r.currency, c.currency)::VARCHAR AS currency,
  COALESCE(c.status, 'unknown')::VARCHAR AS listing_status,
  c.status_since::VARCHAR AS listing_status_since,
  m.index_membership::VARCHAR AS index_membership,
  m.current_index::VARCHAR AS current_index,
  t.first_trade_date::DATE AS first_trade_date,
  t.last_trade_date::DATE AS last_trade_date,
  COALESCE(t.trading_days, 0)::INT AS trading_days
FROM symbols AS s
LEFT JOIN renamed AS r
  ON s.symbol = r.symbol
LEFT JOIN bronze.companies AS c
  ON COALESCE(r.company, s.symbol) = c.symbol
LEFT JOIN traded AS t
  ON s.symbol = t.symbol
LEFT JOIN memberships AS m
  ON s.symbol = m.symbol
MODEL (
  name gold.vw_gold_volume_leaders,
  kind VIEW,
  description 'The companies with the largest volume on the latest trading day.',
  grain symbol,
  audits (not_null(columns := (symbol, position)), unique_values(columns := (
      symbol
  )))
);

WITH market AS (
  SELECT
    MAX(trade_date) AS trade_date
  FROM gold.fct_stock_daily_prices
)
SELECT
  RANK() OVER (ORDER BY f.volume DESC)::INT AS position,
  f.symbol::VARCHAR AS symbol,
  d.company_name::VARCHAR AS company_name,
  f.trade_date::DATE AS trade_date,
  f.close_price::DECIMAL(18, 4) AS close_price,
  f.price_change::DECIMAL(18, 4) AS price_change,
  f.price_change_pct::DECIMAL(18, 4) AS price_change_pct,
  CASE
    WHEN f.price_change > 0
    THEN 'UP'
    WHEN f.price_change < 0
    THEN 'DOWN'
    WHEN f.price_change = 0
    THEN 'FLAT'
  END::VARCHAR AS direction,
  f.volume::BIGINT AS volume,
  ROUND(f.volume / NULLIF(f.volume_ma_7d::DOUBLE, 0) * 100, 2)::DECIMAL(18, 2) AS volume_vs_average_pct,
  f.trend_signal::VARCHAR AS trend_signal,
  f.volume_signal::VARCHAR AS volume_signal
FROM gold.fct_stock_daily_prices AS f
INNER JOIN market AS m
  ON f.trade_date = m.trade_date
INNER JOIN gold.dim_stock AS d
  ON f.symbol = d.symbol
WHERE
  NOT f.volume IS NULL
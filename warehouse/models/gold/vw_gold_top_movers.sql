MODEL (
  name gold.vw_gold_top_movers,
  kind VIEW,
  description 'The companies that moved most on the latest trading day, either way.',
  grain symbol,
  audits (
    rows_are_told_apart(key := (
      symbol
    ), given := (symbol, position))
  )
);

SELECT
  RANK() OVER (ORDER BY ABS(price_change_pct) DESC)::INT AS position,
  symbol::VARCHAR AS symbol,
  company_name::VARCHAR AS company_name,
  trade_date::DATE AS trade_date,
  current_price::DECIMAL(18, 4) AS close_price,
  price_change::DECIMAL(18, 4) AS price_change,
  price_change_pct::DECIMAL(18, 4) AS price_change_pct,
  direction::VARCHAR AS direction,
  volume::BIGINT AS volume,
  volume_vs_average_pct::DECIMAL(18, 2) AS volume_vs_average_pct,
  trend_signal::VARCHAR AS trend_signal,
  volume_signal::VARCHAR AS volume_signal
FROM gold.vw_gold_market_snapshot
WHERE
  traded_on_last_day AND NOT price_change_pct IS NULL
MODEL (
  name gold.vw_gold_market_snapshot,
  kind VIEW,
  description 'The latest row of each company, with its name.',
  column_descriptions (
    traded_on_last_day = 'TRUE where that row is of the latest trading day on record, FALSE where the company has none of that day',
    volume_vs_average_pct = 'Volume in percent of volume_ma_7d'
  ),
  grain symbol,
  audits (
    rows_are_told_apart(key := (
      symbol
    ), given := (symbol, company_name, current_price))
  )
);

WITH last_days AS (
  SELECT
    symbol,
    MAX(trade_date) AS trade_date
  FROM gold.fct_stock_daily_prices
  GROUP BY
    symbol
), market AS (
  SELECT
    MAX(trade_date) AS last_day
  FROM last_days
), latest AS (
  SELECT
    p.symbol,
    p.trade_date,
    p.close_price,
    p.previous_close,
    p.price_change,
    p.price_change_pct,
    p.volume,
    p.volume_ma_7d,
    p.ma_7d,
    p.ma_30d,
    p.rsi_14,
    p.high_52w,
    p.low_52w,
    p.is_rolled_up,
    p.is_limit_up,
    p.is_limit_down,
    p.trend_signal,
    p.volume_signal,
    p.trade_date = m.last_day AS traded_on_last_day
  FROM gold.fct_stock_daily_prices AS p
  INNER JOIN last_days AS l
    ON p.symbol = l.symbol AND p.trade_date = l.trade_date
  CROSS JOIN market AS m
)
SELECT
  f.symbol::VARCHAR AS symbol,
  d.company_name::VARCHAR AS company_name,
  d.company_name_ar::VARCHAR AS company_name_ar,
  d.sector::VARCHAR AS sector,
  d.currency::VARCHAR AS currency,
  f.trade_date::DATE AS trade_date,
  f.close_price::DECIMAL(18, 4) AS current_price,
  f.previous_close::DECIMAL(18, 4) AS previous_close,
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
  f.ma_7d::DECIMAL(18, 4) AS ma_7d,
  f.ma_30d::DECIMAL(18, 4) AS ma_30d,
  f.rsi_14::DECIMAL(18, 4) AS rsi_14,
  f.high_52w::DECIMAL(18, 4) AS high_52w,
  f.low_52w::DECIMAL(18, 4) AS low_52w,
  f.traded_on_last_day::BOOLEAN AS traded_on_last_day,
  f.is_rolled_up::BOOLEAN AS is_rolled_up,
  f.is_limit_up::BOOLEAN AS is_limit_up,
  f.is_limit_down::BOOLEAN AS is_limit_down,
  f.trend_signal::VARCHAR AS trend_signal,
  f.volume_signal::VARCHAR AS volume_signal
FROM latest AS f
INNER JOIN gold.dim_stock AS d
  ON f.symbol = d.symbol
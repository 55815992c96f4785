MODEL (
  name gold.vw_gold_price_history,
  kind VIEW,
  description 'Six months of daily prices and averages up to the latest trading day on record, for charts.',
  grain (symbol, trade_date),
  audits (
    rows_are_told_apart(key := (symbol, trade_date), given := (symbol, trade_date, close_price))
  )
);

WITH market AS (
  SELECT
    DATEADD(MONTH, -6, MAX(trade_date)::TIMESTAMP)::DATE AS first_date
  FROM gold.fct_stock_daily_prices
)
SELECT
  f.symbol::VARCHAR AS symbol,
  f.trade_date::DATE AS trade_date,
  f.open_price::DECIMAL(18, 4) AS open_price,
  f.high_price::DECIMAL(18, 4) AS high_price,
  f.low_price::DECIMAL(18, 4) AS low_price,
  f.close_price::DECIMAL(18, 4) AS close_price,
  f.adj_close::DECIMAL(18, 6) AS adj_close,
  f.volume::BIGINT AS volume,
  f.price_change_pct::DECIMAL(18, 4) AS price_change_pct,
  f.ma_7d::DECIMAL(18, 4) AS ma_7d,
  f.ma_30d::DECIMAL(18, 4) AS ma_30d,
  f.ma_200d::DECIMAL(18, 4) AS ma_200d,
  f.trend_signal::VARCHAR AS trend_signal
FROM gold.fct_stock_daily_prices AS f
INNER JOIN market AS m
  ON f.trade_date >= m.first_date
MODEL (
  name gold.vw_gold_market_breadth,
  kind VIEW,
  description 'One row per trading day: how many companies rose and fell, and how the market stands.',
  column_descriptions (
    traded_value = 'Sum of typical price times volume of the lines in EGP: an approximation',
    above_ma_30d_pct = 'Share of the companies with a 30-day mean whose close is above it'
  ),
  grain trade_date,
  audits (
    rows_are_told_apart(key := (
      trade_date
    ), given := (trade_date, companies))
  )
);

/* COUNT(IFF()) where COUNT_IF would do: over nothing but NULL it becomes NULL on DuckDB and 0 on Snowflake */
SELECT
  f.trade_date::DATE AS trade_date,
  COUNT(*)::INT AS companies,
  COUNT(IFF(f.price_change > 0, 1, NULL))::INT AS advancers,
  COUNT(IFF(f.price_change < 0, 1, NULL))::INT AS decliners,
  COUNT(IFF(f.price_change = 0, 1, NULL))::INT AS unchanged,
  COUNT(IFF(f.high_price >= f.high_52w, 1, NULL))::INT AS new_highs_52w,
  COUNT(IFF(f.low_price <= f.low_52w, 1, NULL))::INT AS new_lows_52w,
  COUNT(IFF(f.is_limit_up, 1, NULL))::INT AS limit_up,
  COUNT(IFF(f.is_limit_down, 1, NULL))::INT AS limit_down,
  SUM(f.volume)::BIGINT AS volume,
  ROUND(SUM(IFF(d.currency = 'EGP', f.typical_price * f.volume, NULL)), 0)::DECIMAL(24, 0) AS traded_value,
  ROUND(
    100 * COUNT(IFF(f.close_price > f.ma_30d, 1, NULL))::DOUBLE / NULLIF(COUNT(f.ma_30d), 0),
    2
  )::DECIMAL(18, 2) AS above_ma_30d_pct
FROM gold.fct_stock_daily_prices AS f
INNER JOIN gold.dim_stock AS d
  ON f.symbol = d.symbol
GROUP BY
  f.trade_date
MODEL (
  name gold.fct_stock_intraday_prices,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key (symbol, bar_interval, bar_time),
    lookback 1
  ),
  description 'One row per company, interval and intraday bar, with the volume-weighted average price of the session up to it. A session with a bar delivered in the interval is computed again as a whole.',
  column_descriptions (
    symbol = 'Symbol the company trades under now',
    bar_time = 'Start of the bar, UTC; bar_time_cairo the same on the clock of the exchange',
    session_volume = 'Shares traded in the session up to this bar',
    session_vwap = 'Sum of typical price times volume over sum of volume, from the first bar of the session to this one'
  ),
  grain (symbol, bar_interval, bar_time),
  audits (
    rows_are_told_apart(
      key := (symbol, bar_interval, bar_time),
      given := (symbol, bar_interval, bar_time, trade_date)
    ),
    bars_are_possible
  )
);

WITH bars AS (
  SELECT
    current_symbol AS symbol,
    symbol AS traded_symbol,
    bar_interval,
    bar_time,
    trade_date,
    open_price,
    high_price,
    low_price,
    close_price,
    volume,
    is_complete,
    has_anomaly,
    data_source,
    ingested_at,
    delivered_on
  FROM silver.stock_prices_cleaned
  WHERE
    exchange = 'EGX' AND bar_interval IN ('1 Minute', '5 Minute', '30 Minute')
), touched AS (
  SELECT DISTINCT
    symbol,
    bar_interval,
    trade_date
  FROM bars
  WHERE
    delivered_on /* a file's time says nothing about when it was put there or taken away: sessions that have one of its bars, or had one, are always computed again */ BETWEEN @start_ds AND @end_ds
    OR data_source = 'HISTORICAL'
  UNION
  SELECT
    f.symbol,
    f.bar_interval,
    f.trade_date
  FROM gold.fct_stock_intraday_prices AS f
  WHERE
    f.data_source = 'HISTORICAL'
), sessions AS (
  SELECT
    b.*
  FROM bars AS b
  INNER JOIN touched AS t
    ON b.symbol = t.symbol
    AND b.bar_interval = t.bar_interval
    AND b.trade_date = t.trade_date
  QUALIFY
    ROW_NUMBER() OVER (
      PARTITION BY b.symbol, b.bar_interval, b.bar_time
      ORDER BY IFF(b.traded_symbol = b.symbol, 0, 1), b.ingested_at DESC, b.traded_symbol
    ) /* on the days of a renaming the new symbol's bar */ = 1
), counted AS (
  /* a bar that contradicts itself or lacks a price stays a row, but its volume counts for nothing */
  SELECT
    *,
    IFF(is_complete AND NOT has_anomaly, volume, NULL) AS counted_volume
  FROM sessions
), summed AS (
  SELECT
    *,
    SUM(counted_volume) OVER (
      PARTITION BY symbol, bar_interval, trade_date
      ORDER BY bar_time
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS session_volume,
    SUM((
      high_price + low_price + close_price
    ) * counted_volume) OVER (
      PARTITION BY symbol, bar_interval, trade_date
      ORDER BY bar_time
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS three_times_value /* three times the value traded, in exact decimals */
  FROM counted
)
SELECT
  symbol::VARCHAR AS symbol,
  bar_interval::VARCHAR AS bar_interval,
  bar_time::TIMESTAMP AS bar_time,
  CONVERT_TIMEZONE('UTC', 'Africa/Cairo', bar_time)::TIMESTAMP AS bar_time_cairo,
  trade_date::DATE AS trade_date,
  traded_symbol::VARCHAR AS traded_symbol,
  open_price::DECIMAL(18, 4) AS open_price,
  high_price::DECIMAL(18, 4) AS high_price,
  low_price::DECIMAL(18, 4) AS low_price,
  close_price::DECIMAL(18, 4) AS close_price,
  volume::BIGINT AS volume,
  session_volume::BIGINT AS session_volume,
  ROUND(three_times_value::DOUBLE / NULLIF(session_volume, 0) / 3, 4)::DECIMAL(18, 4) AS session_vwap,
  is_complete::BOOLEAN AS is_complete,
  has_anomaly::BOOLEAN AS has_anomaly,
  data_source::VARCHAR AS data_source,
  ingested_at::TIMESTAMP AS ingested_at
FROM summed;

@KEEP_BARS_OF_FILES()
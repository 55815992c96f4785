MODEL (
  name silver.stock_prices_streamed,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key (symbol, exchange, bar_interval, bar_time),
    lookback 1
  ),
  description 'The latest version of each streamed bar. Every bar touched in the interval is decided again from all of its deliveries, so that neither the order of deliveries nor that of runs matters.',
  column_descriptions (
    trade_date = 'Day of the exchange, Africa/Cairo'
  ),
  grain (symbol, exchange, bar_interval, bar_time),
  audits (
    rows_are_told_apart(
      key := (symbol, exchange, bar_interval, bar_time),
      given := (symbol, exchange, bar_interval, bar_time, ingested_at)
    ),
    no_bars_of_the_future
  )
);

WITH touched AS (
  SELECT DISTINCT
    symbol,
    exchange,
    bar_interval,
    bar_time
  FROM bronze.stock_prices_raw
  WHERE
    delivered_on BETWEEN @start_ds AND @end_ds AND reject_reason IS NULL
), latest AS (
  SELECT
    r.symbol,
    r.exchange,
    r.bar_interval,
    r.bar_time,
    r.open,
    r.high,
    r.low,
    r.close,
    r.volume,
    r.is_final,
    r.source,
    r.ingested_at,
    r.missing_fields,
    r.archive_object,
    r.source_line,
    r.kafka_partition,
    r.first_offset,
    r.delivered_on
  FROM bronze.stock_prices_raw AS r
  INNER JOIN touched AS t
    ON r.symbol = t.symbol
    AND r.exchange = t.exchange
    AND r.bar_interval = t.bar_interval
    AND r.bar_time = t.bar_time
  WHERE
    r.reject_reason IS NULL
  QUALIFY
    ROW_NUMBER() OVER (
      PARTITION BY r.symbol, r.exchange, r.bar_interval, r.bar_time
      ORDER BY r.ingested_at DESC, r.archive_object DESC, r.source_line DESC
    ) = 1
)
SELECT
  symbol::VARCHAR AS symbol,
  exchange::VARCHAR AS exchange,
  bar_interval::VARCHAR AS bar_interval,
  bar_time::TIMESTAMP AS bar_time,
  @CAIRO_DATE(bar_time)::DATE AS trade_date,
  TRY_CAST(open AS DECIMAL(18, 4))::DECIMAL(18, 4) AS open_price,
  TRY_CAST(high AS DECIMAL(18, 4))::DECIMAL(18, 4) AS high_price,
  TRY_CAST(low AS DECIMAL(18, 4))::DECIMAL(18, 4) AS low_price,
  TRY_CAST(close AS DECIMAL(18, 4))::DECIMAL(18, 4) AS close_price,
  TRY_CAST(volume AS DECIMAL(18, 0))::BIGINT AS volume,
  is_final::BOOLEAN AS is_final,
  source::VARCHAR AS source,
  ingested_at::TIMESTAMP AS ingested_at,
  missing_fields::VARCHAR AS missing_fields,
  archive_object::VARCHAR AS archive_object,
  source_line::BIGINT AS source_line,
  kafka_partition::INT AS kafka_partition,
  first_offset::BIGINT AS first_offset,
  delivered_on::DATE AS delivered_on
FROM latest
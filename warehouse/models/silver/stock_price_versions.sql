MODEL (
  name silver.stock_price_versions,
  kind VIEW,
  description 'Every streamed version of every bar with the time in which it was the known one: WHERE known_from <= t AND (known_until > t OR known_until IS NULL) gives the bars as of t.',
  column_descriptions (
    known_from = 'UTC time of this version',
    known_until = 'UTC time of the version that replaced it; NULL for the current one'
  ),
  grain (symbol, exchange, bar_interval, bar_time, known_from),
  audits (
    not_null(columns := (symbol, exchange, bar_interval, bar_time, known_from)),
    unique_combination_of_columns(columns := (symbol, exchange, bar_interval, bar_time, known_from))
  )
);

WITH versions AS (
  SELECT
    symbol,
    exchange,
    bar_interval,
    bar_time,
    open,
    high,
    low,
    close,
    volume,
    is_final,
    ingested_at,
    archive_object,
    source_line
  FROM bronze.stock_prices_raw
  WHERE
    reject_reason IS NULL
  QUALIFY
    ROW_NUMBER() OVER (
      PARTITION BY symbol, exchange, bar_interval, bar_time, ingested_at
      ORDER BY archive_object DESC, source_line DESC
    ) /* a version delivered twice is one version */ = 1
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
  ingested_at::TIMESTAMP AS known_from,
  LEAD(ingested_at) OVER (PARTITION BY symbol, exchange, bar_interval, bar_time ORDER BY ingested_at)::TIMESTAMP AS known_until,
  archive_object::VARCHAR AS archive_object,
  source_line::BIGINT AS source_line
FROM versions
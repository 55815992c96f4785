MODEL (
  name silver.stock_prices_history,
  kind FULL,
  description 'The latest version of each bar that came in a file, typed.',
  column_descriptions (
    trade_date = 'Day of the exchange, Africa/Cairo'
  ),
  grain (symbol, exchange, bar_interval, bar_time),
  audits (
    rows_are_told_apart(
      key := (symbol, exchange, bar_interval, bar_time),
      given := (symbol, exchange, bar_interval, bar_time, ingested_at)
    )
  )
);

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
  source::VARCHAR AS source,
  ingested_at::TIMESTAMP AS ingested_at,
  archive_object::VARCHAR AS archive_object,
  source_line::BIGINT AS source_line
FROM bronze.stock_prices_historical
WHERE
  reject_reason IS NULL
QUALIFY
  ROW_NUMBER() OVER (
    PARTITION BY symbol, exchange, bar_interval, bar_time
    ORDER BY ingested_at DESC, archive_object DESC, source_line DESC
  ) = 1
MODEL (
  name silver.stock_price_versions,
  kind VIEW,
  description 'Every version of every bar with the time in which it was the known one: WHERE known_from <= t AND (known_until > t OR known_until IS NULL) gives the bars as of t, streamed ones before those of files, as silver.stock_prices_cleaned has them now.',
  column_descriptions (
    known_from = 'UTC time of this version; of a bar in a file, when the file was last changed: what it said before is not kept',
    known_until = 'UTC time of the version that replaced it; NULL for the current one',
    data_source = 'STREAMING or HISTORICAL'
  ),
  grain (symbol, exchange, bar_interval, bar_time, known_from),
  audits (
    rows_are_told_apart(
      key := (symbol, exchange, bar_interval, bar_time, known_from),
      given := (symbol, exchange, bar_interval, known_from),
      condition := bar_time >= DATEADD(DAY, -7, @execution_ds::TIMESTAMP)
    ) /* of the bars of the week before the run: of all, this would be the longest part of it, and the view cannot give any twice */
  )
);

WITH streamed AS (
  SELECT
    symbol,
    exchange,
    bar_interval,
    bar_time,
    TRY_CAST(open AS DECIMAL(18, 4)) AS open_price,
    TRY_CAST(high AS DECIMAL(18, 4)) AS high_price,
    TRY_CAST(low AS DECIMAL(18, 4)) AS low_price,
    TRY_CAST(close AS DECIMAL(18, 4)) AS close_price,
    TRY_CAST(volume AS DECIMAL(18, 0)) AS volume,
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
), first_streamed AS (
  SELECT
    symbol,
    exchange,
    bar_interval,
    bar_time,
    MIN(ingested_at) AS known_from
  FROM streamed
  GROUP BY
    symbol,
    exchange,
    bar_interval,
    bar_time
), versions AS (
  SELECT
    symbol,
    exchange,
    bar_interval,
    bar_time,
    open_price,
    high_price,
    low_price,
    close_price,
    volume,
    is_final,
    'STREAMING' AS data_source,
    ingested_at AS known_from,
    LEAD(ingested_at) OVER (PARTITION BY symbol, exchange, bar_interval, bar_time ORDER BY ingested_at) AS known_until,
    archive_object,
    source_line
  FROM streamed
  UNION ALL
  /* a file's bar is known until the first streamed one, and never was where that came before */
  SELECT
    h.symbol,
    h.exchange,
    h.bar_interval,
    h.bar_time,
    h.open_price,
    h.high_price,
    h.low_price,
    h.close_price,
    h.volume,
    TRUE AS is_final,
    'HISTORICAL' AS data_source,
    h.ingested_at AS known_from,
    s.known_from AS known_until,
    h.archive_object,
    h.source_line
  FROM silver.stock_prices_history AS h
  LEFT JOIN first_streamed AS s
    ON h.symbol = s.symbol
    AND h.exchange = s.exchange
    AND h.bar_interval = s.bar_interval
    AND h.bar_time = s.bar_time
  WHERE
    s.known_from IS NULL OR s.known_from > h.ingested_at
)
SELECT
  symbol::VARCHAR AS symbol,
  exchange::VARCHAR AS exchange,
  bar_interval::VARCHAR AS bar_interval,
  bar_time::TIMESTAMP AS bar_time,
  @CAIRO_DATE(bar_time)::DATE AS trade_date,
  open_price::DECIMAL(18, 4) AS open_price,
  high_price::DECIMAL(18, 4) AS high_price,
  low_price::DECIMAL(18, 4) AS low_price,
  close_price::DECIMAL(18, 4) AS close_price,
  volume::BIGINT AS volume,
  is_final::BOOLEAN AS is_final,
  data_source::VARCHAR AS data_source,
  known_from::TIMESTAMP AS known_from,
  known_until::TIMESTAMP AS known_until,
  archive_object::VARCHAR AS archive_object,
  source_line::BIGINT AS source_line
FROM versions
MODEL (
  name silver.stock_prices_cleaned,
  kind VIEW,
  description 'One row per bar, as traded: its latest version, typed, with what is wrong with it said, not dropped. A streamed bar wins over one from a file.',
  column_descriptions (
    symbol = 'Symbol it traded under at the time',
    current_symbol = 'Symbol the company trades under now',
    bar_time = 'Start of the bar, UTC',
    trade_date = 'Day of the exchange, Africa/Cairo',
    is_complete = 'TRUE where all four prices and the volume are there',
    has_anomaly = 'TRUE where prices contradict each other; anomaly_reason says how',
    is_final = 'TRUE where the producer said that the period was over',
    data_source = 'STREAMING or HISTORICAL',
    archive_object = 'Object under the archive that holds this version',
    source_line = 'Its line in that object',
    first_offset = 'Kafka offset of the first record of that object'
  ),
  grain (symbol, exchange, bar_interval, bar_time),
  audits (
    rows_are_told_apart(
      key := (symbol, exchange, bar_interval, bar_time),
      given := (symbol, exchange, bar_interval, bar_time, trade_date, ingested_at, data_source)
    ),
    bars_are_possible,
    bars_are_sane
  )
);

WITH bars AS (
  SELECT
    symbol,
    exchange,
    bar_interval,
    bar_time,
    trade_date,
    open_price,
    high_price,
    low_price,
    close_price,
    volume,
    is_final,
    source,
    ingested_at,
    'STREAMING' AS data_source,
    archive_object,
    source_line,
    kafka_partition,
    first_offset,
    delivered_on
  FROM silver.stock_prices_streamed
  UNION ALL
  SELECT
    h.symbol,
    h.exchange,
    h.bar_interval,
    h.bar_time,
    h.trade_date,
    h.open_price,
    h.high_price,
    h.low_price,
    h.close_price,
    h.volume,
    TRUE AS is_final,
    h.source,
    h.ingested_at,
    'HISTORICAL' AS data_source,
    h.archive_object,
    h.source_line,
    NULL AS kafka_partition,
    NULL AS first_offset,
    h.ingested_at::DATE AS delivered_on
  FROM silver.stock_prices_history AS h
  LEFT JOIN silver.stock_prices_streamed AS s
    ON h.symbol = s.symbol
    AND h.exchange = s.exchange
    AND h.bar_interval = s.bar_interval
    AND h.bar_time = s.bar_time
  WHERE
    s.symbol IS NULL
), judged AS (
  SELECT
    b.*,
    COALESCE(r.new_symbol, b.symbol) AS current_symbol,
    COALESCE(b.high_price < b.low_price, FALSE) AS is_inverted,
    COALESCE(b.open_price > b.high_price OR b.open_price < b.low_price, FALSE) AS is_open_outside,
    COALESCE(b.close_price > b.high_price OR b.close_price < b.low_price, FALSE) AS is_close_outside
  FROM bars AS b
  LEFT JOIN bronze.symbol_history AS r
    ON b.symbol = r.old_symbol
)
SELECT
  symbol::VARCHAR AS symbol,
  current_symbol::VARCHAR AS current_symbol,
  exchange::VARCHAR AS exchange,
  bar_interval::VARCHAR AS bar_interval,
  bar_time::TIMESTAMP AS bar_time,
  trade_date::DATE AS trade_date,
  open_price::DECIMAL(18, 4) AS open_price,
  high_price::DECIMAL(18, 4) AS high_price,
  low_price::DECIMAL(18, 4) AS low_price,
  close_price::DECIMAL(18, 4) AS close_price,
  volume::BIGINT AS volume,
  (
    NOT open_price IS NULL
    AND NOT high_price IS NULL
    AND NOT low_price IS NULL
    AND NOT close_price IS NULL
    AND NOT volume IS NULL
  )::BOOLEAN AS is_complete,
  (
    is_inverted OR is_open_outside OR is_close_outside
  )::BOOLEAN AS has_anomaly,
  NULLIF(
    IFF(is_inverted, 'high below low; ', '') || IFF(is_open_outside, 'open outside the range; ', '') || IFF(is_close_outside, 'close outside the range; ', ''),
    ''
  )::VARCHAR AS anomaly_reason,
  is_final::BOOLEAN AS is_final,
  data_source::VARCHAR AS data_source,
  source::VARCHAR AS source,
  ingested_at::TIMESTAMP AS ingested_at,
  archive_object::VARCHAR AS archive_object,
  source_line::BIGINT AS source_line,
  kafka_partition::INT AS kafka_partition,
  first_offset::BIGINT AS first_offset,
  delivered_on::DATE AS delivered_on
FROM judged
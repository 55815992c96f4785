MODEL (
  name bronze.stock_prices_raw,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column delivered_on,
    lookback 1
  ),
  description 'Every line of the streaming archive as delivered: the text, its place, the key, and why it is no bar.',
  column_descriptions (
    record = 'The line itself, so that fields which no column names are kept',
    bar_time = 'Start of the bar, UTC; a Daily bar starts at 10:00 in Cairo whatever the producer wrote',
    ingested_at = 'UTC time of the version; from the object name where the record has none',
    missing_fields = 'Fields of the message that this record lacks or gives as null',
    reject_reason = 'Why the line is no bar; NULL for a bar',
    object_size = 'Bytes of the object when it was read; NULL on Snowflake'
  ),
  grain (archive_object, source_line),
  audits (
    rows_are_told_apart(
      key := (archive_object, source_line),
      given := (delivered_on, archive_object, source_line, record)
    ),
    accepted_bars_have_keys
  )
);

WITH parsed AS (
  SELECT
    line,
    archive_object,
    source_line,
    delivered_on,
    object_size,
    SPLIT_PART(archive_object, '/', 4) AS object_name,
    TRY_PARSE_JSON(line) AS record
  FROM @ARCHIVE(@start_ds, @end_ds)
  WHERE
    delivered_on BETWEEN @start_ds AND @end_ds
    AND (
      line <> ''
      OR source_line = 1 /* an object without a line is named, and is not taken for one that came late */
    )
), fields AS (
  SELECT
    line,
    archive_object,
    source_line,
    delivered_on,
    object_size,
    record IS NULL AS is_not_json,
    TRY_CAST(SPLIT_PART(object_name, '-', 2) AS INT) AS kafka_partition,
    TRY_CAST(SPLIT_PART(SPLIT_PART(object_name, '-', 3), '.', 1) AS BIGINT) AS first_offset,
    TRY_CAST(TO_CHAR(delivered_on) || ' ' || REGEXP_REPLACE(
      SUBSTRING(object_name, 1, 12),
      '^([0-9][0-9])([0-9][0-9])([0-9][0-9])([0-9]+)$',
      '\\1:\\2:\\3.\\4'
    ) AS TIMESTAMPNTZ) AS object_time,
    JSON_EXTRACT_PATH_TEXT(record, 'symbol') AS symbol,
    JSON_EXTRACT_PATH_TEXT(record, 'exchange') AS exchange,
    JSON_EXTRACT_PATH_TEXT(record, 'interval') AS bar_interval,
    JSON_EXTRACT_PATH_TEXT(record, 'datetime') AS bar_start,
    JSON_EXTRACT_PATH_TEXT(record, 'open') AS open,
    JSON_EXTRACT_PATH_TEXT(record, 'high') AS high,
    JSON_EXTRACT_PATH_TEXT(record, 'low') AS low,
    JSON_EXTRACT_PATH_TEXT(record, 'close') AS close,
    JSON_EXTRACT_PATH_TEXT(record, 'volume') AS volume,
    JSON_EXTRACT_PATH_TEXT(record, 'ingestion_timestamp') AS ingestion_timestamp,
    JSON_EXTRACT_PATH_TEXT(record, 'source') AS source,
    JSON_EXTRACT_PATH_TEXT(record, 'is_final') AS is_final
  FROM parsed
), typed AS (
  SELECT
    *,
    @UTC(bar_start) AS start_time,
    COALESCE(@UTC(ingestion_timestamp), object_time) AS ingested_at
  FROM fields
), placed AS (
  SELECT
    *,
    CASE
      WHEN bar_interval = 'Daily'
      THEN @OPENING(@CAIRO_DATE(start_time))
      ELSE start_time
    END AS bar_time
  FROM typed
)
SELECT
  symbol::VARCHAR AS symbol,
  exchange::VARCHAR AS exchange,
  bar_interval::VARCHAR AS bar_interval,
  bar_time::TIMESTAMP AS bar_time,
  open::VARCHAR AS open,
  high::VARCHAR AS high,
  low::VARCHAR AS low,
  close::VARCHAR AS close,
  volume::VARCHAR AS volume,
  ingested_at::TIMESTAMP AS ingested_at,
  source::VARCHAR AS source,
  TRY_CAST(is_final AS BOOLEAN)::BOOLEAN AS is_final,
  (
    IFF(symbol IS NULL, 'symbol ', '') || IFF(exchange IS NULL, 'exchange ', '') || IFF(bar_interval IS NULL, 'interval ', '') || IFF(bar_start IS NULL, 'datetime ', '') || IFF(open IS NULL, 'open ', '') || IFF(high IS NULL, 'high ', '') || IFF(low IS NULL, 'low ', '') || IFF(close IS NULL, 'close ', '') || IFF(volume IS NULL, 'volume ', '') || IFF(ingestion_timestamp IS NULL, 'ingestion_timestamp ', '') || IFF(source IS NULL, 'source ', '') || IFF(is_final IS NULL, 'is_final ', '')
  )::VARCHAR AS missing_fields,
  CASE
    WHEN is_not_json
    THEN 'not JSON'
    WHEN symbol IS NULL
    THEN 'no symbol'
    WHEN NOT REGEXP_LIKE(symbol, '[A-Z0-9._]{1,20}')
    THEN 'symbol not allowed'
    WHEN exchange IS NULL
    THEN 'no exchange'
    WHEN bar_interval IS NULL
    THEN 'no interval'
    WHEN start_time IS NULL
    THEN 'datetime is not a time'
    WHEN start_time < '1990-01-01'::TIMESTAMP
    THEN 'before 1990'
    WHEN ingested_at IS NULL
    THEN 'no time of ingestion'
    WHEN ingested_at > DATEADD(DAY, 2, delivered_on)
    THEN 'ingested after delivery' /* it would win over every true correction */
    WHEN bar_time > DATEADD(DAY, 1, ingested_at)
    OR bar_time > DATEADD(DAY, 2, delivered_on)
    THEN 'over a day ahead'
    WHEN NOT open IS NULL
    AND NOT COALESCE(TRY_CAST(open AS DECIMAL(18, 4)), 0) BETWEEN 0.0001 AND 99999999.9999
    THEN 'open is not a price'
    WHEN NOT high IS NULL
    AND NOT COALESCE(TRY_CAST(high AS DECIMAL(18, 4)), 0) BETWEEN 0.0001 AND 99999999.9999
    THEN 'high is not a price'
    WHEN NOT low IS NULL
    AND NOT COALESCE(TRY_CAST(low AS DECIMAL(18, 4)), 0) BETWEEN 0.0001 AND 99999999.9999
    THEN 'low is not a price'
    WHEN NOT close IS NULL
    AND NOT COALESCE(TRY_CAST(close AS DECIMAL(18, 4)), 0) BETWEEN 0.0001 AND 99999999.9999
    THEN 'close is not a price'
    WHEN NOT volume IS NULL
    AND NOT COALESCE(TRY_CAST(volume AS DECIMAL(18, 0)), -1) BETWEEN 0 AND 9999999999999
    THEN 'volume is not a count'
  END::VARCHAR AS reject_reason,
  line::VARCHAR AS record,
  archive_object::VARCHAR AS archive_object,
  source_line::BIGINT AS source_line,
  kafka_partition::INT AS kafka_partition,
  first_offset::BIGINT AS first_offset,
  delivered_on::DATE AS delivered_on,
  object_size::BIGINT AS object_size
FROM placed
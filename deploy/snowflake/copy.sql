COPY INTO ${database}.LANDING.STOCK_PRICES_ARCHIVE (line, archive_object, source_line, delivered_on)
FROM (
  SELECT
    $$1,
    REGEXP_SUBSTR(METADATA$$FILENAME, 'streaming/.*'),
    METADATA$$FILE_ROW_NUMBER,
    TO_DATE(REGEXP_SUBSTR(METADATA$$FILENAME, 'date=([0-9-]+)', 1, 1, 'e'))
  FROM @${database}.LANDING.ARCHIVE/streaming/
)
FILE_FORMAT = (FORMAT_NAME = ${database}.LANDING.LINES)
PATTERN = '.*[.]json'

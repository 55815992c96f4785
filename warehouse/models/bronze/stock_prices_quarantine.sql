MODEL (
  name bronze.stock_prices_quarantine,
  kind VIEW,
  description 'Lines of the archive that are no bar: which object, which line, why, and the text.',
  grain (archive_object, source_line),
  audits (
    not_null(columns := (archive_object, source_line, reject_reason)),
    quarantine_is_empty
  )
);

SELECT
  archive_object::VARCHAR AS archive_object,
  source_line::BIGINT AS source_line,
  reject_reason::VARCHAR AS reject_reason,
  symbol::VARCHAR AS symbol,
  bar_interval::VARCHAR AS bar_interval,
  bar_time::TIMESTAMP AS bar_time,
  delivered_on::DATE AS delivered_on,
  record::VARCHAR AS record
FROM bronze.stock_prices_raw
WHERE
  NOT reject_reason IS NULL
UNION ALL
SELECT
  archive_object::VARCHAR AS archive_object,
  source_line::BIGINT AS source_line,
  reject_reason::VARCHAR AS reject_reason,
  symbol::VARCHAR AS symbol,
  bar_interval::VARCHAR AS bar_interval,
  bar_time::TIMESTAMP AS bar_time,
  ingested_at::DATE AS delivered_on,
  record::VARCHAR AS record
FROM bronze.stock_prices_historical
WHERE
  NOT reject_reason IS NULL
-- Lines of the archive's objects as they stand: one that is not JSON must reach bronze, which names it.
CREATE FILE FORMAT IF NOT EXISTS ${database}.LANDING.LINES
  TYPE = CSV
  FIELD_DELIMITER = NONE
  RECORD_DELIMITER = '\n'
  ESCAPE_UNENCLOSED_FIELD = NONE
  REPLACE_INVALID_CHARACTERS = TRUE;

CREATE TABLE IF NOT EXISTS ${database}.LANDING.STOCK_PRICES_ARCHIVE (
  line VARCHAR,
  archive_object VARCHAR,
  source_line BIGINT,
  delivered_on DATE
);

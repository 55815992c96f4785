-- Lines of the archive's objects as they stand: one that is not JSON must reach bronze, which names it. A blank line would
-- be an error to COPY, and is nothing to bronze; no text stands for NULL.
CREATE OR REPLACE FILE FORMAT ${database}.LANDING.LINES
  TYPE = CSV
  FIELD_DELIMITER = NONE
  RECORD_DELIMITER = '\n'
  ESCAPE_UNENCLOSED_FIELD = NONE
  SKIP_BLANK_LINES = TRUE
  EMPTY_FIELD_AS_NULL = FALSE
  NULL_IF = ()
  REPLACE_INVALID_CHARACTERS = TRUE;

CREATE TABLE IF NOT EXISTS ${database}.LANDING.STOCK_PRICES_ARCHIVE (
  line VARCHAR,
  archive_object VARCHAR,
  source_line BIGINT,
  delivered_on DATE
);

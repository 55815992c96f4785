-- Snowpipe: each new object within a minute or so. Give the bucket's event notifications the queue that SHOW PIPES names.
CREATE PIPE IF NOT EXISTS ${database}.LANDING.LOAD_ARCHIVE
  AUTO_INGEST = TRUE
AS
${copy};

-- Snowpipe: each new object within a minute or so. Give the bucket's event notifications the queue that SHOW PIPES names.
DROP TASK IF EXISTS ${database}.LANDING.LOAD_ARCHIVE;

-- What is in the bucket already: a pipe is told of new objects only.
${copy}
ON_ERROR = ABORT_STATEMENT;

-- A pipe cannot abort: it skips an object that it cannot load as a whole, and says so in COPY_HISTORY.
CREATE OR REPLACE PIPE ${database}.LANDING.LOAD_ARCHIVE
  AUTO_INGEST = TRUE
AS
${copy}
ON_ERROR = SKIP_FILE;

-- What came between the two; of the last 7 days, and nothing that was loaded before.
ALTER PIPE ${database}.LANDING.LOAD_ARCHIVE REFRESH;

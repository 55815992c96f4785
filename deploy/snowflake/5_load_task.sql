-- A scheduled COPY, before each run of the warehouse; it skips objects that it has loaded (for 64 days, as Snowflake remembers).
-- An object that cannot be loaded fails the task and nothing is loaded, until the object is mended or taken away.
DROP PIPE IF EXISTS ${database}.LANDING.LOAD_ARCHIVE;

CREATE OR REPLACE TASK ${database}.LANDING.LOAD_ARCHIVE
  WAREHOUSE = ${warehouse}
  SCHEDULE = 'USING CRON ${load_cron} Africa/Cairo'
AS
${copy}
ON_ERROR = ABORT_STATEMENT;

ALTER TASK ${database}.LANDING.LOAD_ARCHIVE RESUME;

-- What is in the bucket already.
${copy}
ON_ERROR = ABORT_STATEMENT;

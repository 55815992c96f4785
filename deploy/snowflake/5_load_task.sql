-- A scheduled COPY, before each run of the warehouse; it skips objects that it has loaded (for 64 days, as Snowflake remembers).
DROP PIPE IF EXISTS ${database}.LANDING.LOAD_ARCHIVE;

CREATE OR REPLACE TASK ${database}.LANDING.LOAD_ARCHIVE
  WAREHOUSE = ${warehouse}
  SCHEDULE = 'USING CRON ${load_cron} Africa/Cairo'
AS
${copy};

ALTER TASK ${database}.LANDING.LOAD_ARCHIVE RESUME;

-- What is in the bucket already.
${copy};

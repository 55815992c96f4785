-- A scheduled COPY, before the nightly run; it skips objects that it has loaded (for 64 days, as Snowflake remembers).
CREATE TASK IF NOT EXISTS ${database}.LANDING.LOAD_ARCHIVE
  WAREHOUSE = ${warehouse}
  SCHEDULE = 'USING CRON ${load_cron} Africa/Cairo'
AS
${copy};

ALTER TASK ${database}.LANDING.LOAD_ARCHIVE RESUME;

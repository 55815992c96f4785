AUDIT (
  name checks_are_told_apart
);

/* a check says one thing of a company, day and detail, and always how it stands. Of the week before the run: of all, this would compute the whole view once more */
SELECT
  check_name,
  symbol,
  trade_date,
  detail
FROM @this_model
WHERE
  trade_date >= DATEADD(DAY, -7, @execution_ds::TIMESTAMP)::DATE
GROUP BY
  check_name,
  symbol,
  trade_date,
  detail
HAVING
  COUNT(*) > 1 OR MAX(IFF(check_name IS NULL OR status IS NULL, 1, 0)) = 1
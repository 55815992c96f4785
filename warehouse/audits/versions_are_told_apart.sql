AUDIT (
  name versions_are_told_apart
);

/* two versions of a bar cannot be known from the same moment. Of the bars of the week before the run: of all, this would be the longest part of it, and the view cannot give any twice */
SELECT
  symbol,
  exchange,
  bar_interval,
  bar_time,
  known_from
FROM @this_model
WHERE
  bar_time >= DATEADD(DAY, -7, @execution_ds::TIMESTAMP)
GROUP BY
  symbol,
  exchange,
  bar_interval,
  bar_time,
  known_from
HAVING
  COUNT(*) > 1
  OR symbol IS NULL
  OR exchange IS NULL
  OR bar_interval IS NULL
  OR known_from IS NULL
AUDIT (
  name no_bars_of_the_future
);

/* what a bar says of its own times cannot be later than its delivery, which does not come from the bar */
SELECT
  *
FROM @this_model
WHERE
  bar_time > DATEADD(DAY, 2, delivered_on)
  OR ingested_at > DATEADD(DAY, 2, delivered_on)
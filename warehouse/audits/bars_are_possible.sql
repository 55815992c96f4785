AUDIT (
  name bars_are_possible,
  defaults (
    time = bar_time
  )
);

/* a fact that cannot be: blocks */
SELECT
  *
FROM @this_model
WHERE
  open_price <= 0
  OR high_price <= 0
  OR low_price <= 0
  OR close_price <= 0
  OR volume < 0
  OR @time > DATEADD(DAY, 1, ingested_at)
AUDIT (
  name accepted_bars_have_keys
);

SELECT
  *
FROM @this_model
WHERE
  reject_reason IS NULL
  AND (
    symbol IS NULL
    OR exchange IS NULL
    OR bar_interval IS NULL
    OR bar_time IS NULL
    OR ingested_at IS NULL
  )
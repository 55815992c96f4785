AUDIT (
  name bars_are_sane,
  blocking FALSE
);

/* worth a look, kept all the same: warns */
SELECT
  *
FROM @this_model
WHERE
  has_anomaly OR NOT is_complete
AUDIT (
  name rows_are_told_apart,
  defaults (
    condition = TRUE
  )
);

/* one row a key, and the given columns are never NULL: what unique_combination_of_columns and not_null say, in one query; of the rows that meet the condition, as SQLMesh's own audits have one */
SELECT
  @EACH(@key, c -> c)
FROM @this_model
WHERE
  @condition
GROUP BY
  @EACH(@key, c -> c)
HAVING
  COUNT(*) > 1
  OR @REDUCE(@EACH(@given, c -> COUNT(c) < COUNT(*)), (x, y) -> x OR y)
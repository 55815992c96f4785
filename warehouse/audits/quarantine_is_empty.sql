AUDIT (
  name quarantine_is_empty,
  blocking FALSE
);

/* each row names the object, the line and the reason: warns */
SELECT
  *
FROM @this_model
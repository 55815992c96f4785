AUDIT (
  name jumps_are_explained,
  blocking FALSE
);

/* a close beyond the day's price limit and no corporate action on record: a wrong bar, or an action to add */
SELECT
  symbol,
  trade_date,
  previous_close,
  close_price
FROM @this_model
WHERE
  has_unexplained_jump
MODEL (
  name gold.dim_date,
  kind FULL,
  description 'One row per calendar day, 1990 to 2044: whether the exchange trades, why not, and when.',
  column_descriptions (
    is_trading_day = 'By the rules of the stream: FALSE on Fridays, Saturdays and closures; NULL where the hours of that time are not on record',
    is_known = 'TRUE where it was observed that the exchange traded that day, or did not; elsewhere by rule (docs/calendar.md)',
    reason = 'Why there is no trading, or the holiday on which there was',
    session_kind = 'regular or ramadan',
    session_open = 'UTC; so are the other times; NULL where the hours of that time are not on record',
    session_close_continuous = 'End of continuous trading, when the closing auction begins',
    session_minutes = 'Minutes that can have a bar: continuous trading, the auction, and trading at the close'
  ),
  grain date_day,
  audits (
    rows_are_told_apart(key := (
      date_day
    ), given := (date_day, is_known))
  )
);

WITH digits AS (
  SELECT
    digit
  FROM (VALUES
    (0),
    (1),
    (2),
    (3),
    (4),
    (5),
    (6),
    (7),
    (8),
    (9)) AS v(digit)
), days AS (
  SELECT
    DATEADD(
      DAY,
      a.digit + 10 * b.digit + 100 * c.digit + 1000 * d.digit + 10000 * e.digit,
      '1990-01-01'::TIMESTAMP
    )::DATE AS date_day
  FROM digits AS a
  CROSS JOIN digits AS b
  CROSS JOIN digits AS c
  CROSS JOIN digits AS d
  CROSS JOIN digits AS e
  WHERE
    e.digit < 2
), hours AS (
  SELECT
    d.date_day,
    h.kind,
    h.open,
    h.close_continuous,
    h.auction_end,
    h.close
  FROM days AS d
  INNER JOIN bronze.exchange_hours AS h
    ON d.date_day >= h.valid_from
    AND d.date_day <= COALESCE(h.valid_to, '9999-12-31'::DATE)
  QUALIFY
    ROW_NUMBER() OVER (PARTITION BY d.date_day ORDER BY IFF(h.kind = 'regular', 1, 0), h.valid_from) = 1
), known AS (
  SELECT DISTINCT
    d.date_day
  FROM days AS d
  INNER JOIN bronze.exchange_closures_known AS k
    ON d.date_day BETWEEN k.valid_from AND COALESCE(k.valid_to, '9999-12-31'::DATE)
), judged AS (
  SELECT
    d.date_day,
    DAYOFWEEKISO(d.date_day) AS weekday,
    NOT k.date_day IS NULL AS is_known,
    COALESCE(
      IFF(DAYOFWEEKISO(d.date_day) IN (5, 6), 'Weekend', NULL),
      c.reason,
      IFF(k.date_day IS NULL, e.reason, NULL)
    ) AS closure, /* an announced closure counts at once; an expected one only where nobody has observed that time */
    o.reason AS open_holiday,
    h.kind,
    h.open,
    h.close_continuous,
    h.auction_end,
    h.close
  FROM days AS d
  LEFT JOIN bronze.exchange_closures AS c
    ON d.date_day = c.date
  LEFT JOIN bronze.exchange_closures_expected AS e
    ON d.date_day = e.date
  LEFT JOIN known AS k
    ON d.date_day = k.date_day
  LEFT JOIN bronze.exchange_open_holidays AS o
    ON d.date_day = o.date
  LEFT JOIN hours AS h
    ON d.date_day = h.date_day
), timed AS (
  SELECT
    *,
    CASE WHEN NOT closure IS NULL THEN FALSE WHEN NOT kind IS NULL THEN TRUE END AS is_trading_day
  FROM judged
)
SELECT
  date_day::DATE AS date_day,
  DATE_PART(YEAR, date_day)::INT AS year,
  DATE_PART(MONTH, date_day)::INT AS month,
  DATE_PART(DAY, date_day)::INT AS day,
  weekday::INT AS iso_weekday,
  is_trading_day::BOOLEAN AS is_trading_day,
  is_known::BOOLEAN AS is_known,
  COALESCE(closure, open_holiday)::VARCHAR AS reason,
  IFF(is_trading_day, kind, NULL)::VARCHAR AS session_kind,
  IFF(is_trading_day, @CAIRO_TIME(date_day, open), NULL)::TIMESTAMP AS session_open,
  IFF(is_trading_day, @CAIRO_TIME(date_day, close_continuous), NULL)::TIMESTAMP AS session_close_continuous,
  IFF(is_trading_day, @CAIRO_TIME(date_day, auction_end), NULL)::TIMESTAMP AS session_auction_end,
  IFF(is_trading_day, @CAIRO_TIME(date_day, close), NULL)::TIMESTAMP AS session_close,
  IFF(
    is_trading_day,
    DATEDIFF(MINUTE, @CAIRO_TIME(date_day, open), @CAIRO_TIME(date_day, close_continuous)) + DATEDIFF(MINUTE, @CAIRO_TIME(date_day, auction_end), @CAIRO_TIME(date_day, close)),
    NULL
  )::INT AS session_minutes
FROM timed
MODEL (
  name gold.dim_date,
  kind FULL,
  description 'One row per calendar day, 1990 to 2044: whether the exchange trades, why not, and when.',
  column_descriptions (
    is_trading_day = 'FALSE on Fridays, Saturdays and known closures',
    is_known = 'TRUE where closures are on record for that time; elsewhere a trading day is an assumption',
    reason = 'Why there is no trading, or the holiday on which there was',
    session_kind = 'regular or ramadan',
    session_open = 'UTC; so are the other times; NULL where the hours of that time are not on record',
    session_close_continuous = 'End of continuous trading, when the closing auction begins',
    session_minutes = 'Minutes that can have a bar: continuous trading, the auction, and trading at the close'
  ),
  grain date_day,
  audits (
    not_null(columns := (date_day, is_trading_day)),
    unique_values(columns := (
      date_day
    ))
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
    ROW_NUMBER() OVER (PARTITION BY d.date_day ORDER BY IFF(h.kind = 'regular', 1, 0)) = 1
), known AS (
  SELECT
    DATE_TRUNC('YEAR', MIN(date)::TIMESTAMP)::DATE AS first_day,
    MAX(date) AS last_day
  FROM bronze.exchange_closures
), judged AS (
  SELECT
    d.date_day,
    DAYOFWEEKISO(d.date_day) AS weekday,
    DAYOFWEEKISO(d.date_day) IN (5, 6) AS is_weekend,
    c.reason AS closure,
    o.reason AS open_holiday,
    d.date_day BETWEEN k.first_day AND k.last_day AS is_known,
    h.kind,
    h.open,
    h.close_continuous,
    h.auction_end,
    h.close
  FROM days AS d
  CROSS JOIN known AS k
  LEFT JOIN bronze.exchange_closures AS c
    ON d.date_day = c.date
  LEFT JOIN bronze.exchange_open_holidays AS o
    ON d.date_day = o.date
  LEFT JOIN hours AS h
    ON d.date_day = h.date_day
), timed AS (
  SELECT
    *,
    NOT is_weekend AND closure IS NULL AS is_trading_day
  FROM judged
)
SELECT
  date_day::DATE AS date_day,
  DATE_PART(YEAR, date_day)::INT AS year,
  DATE_PART(MONTH, date_day)::INT AS month,
  DATE_PART(DAY, date_day)::INT AS day,
  weekday::INT AS iso_weekday,
  is_trading_day::BOOLEAN AS is_trading_day,
  (
    is_weekend OR is_known
  )::BOOLEAN AS is_known,
  COALESCE(IFF(is_weekend, 'Weekend', NULL), closure, open_holiday)::VARCHAR AS reason,
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
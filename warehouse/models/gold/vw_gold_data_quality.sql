MODEL (
  name gold.vw_gold_data_quality,
  kind VIEW,
  description 'What is known to be missing or doubtful: one row per check, company and day (and bar or line, where the check is about one). See docs/warehouse.md for the checks.',
  column_descriptions (
    check_name = 'bars, freshness, anomaly, incomplete, missing_field, rejected, historical_difference, price_jump, no_price_step',
    status = 'ok, or warn where somebody should look',
    expected = 'Bars that the calendar lets expect (bars), or 0',
    received = 'Bars received (bars), trading days since the company''s last row (freshness), or how many'
  ),
  grain (check_name, symbol, trade_date, detail),
  audits (
    rows_are_told_apart(
      key := (check_name, symbol, trade_date, detail),
      given := (check_name, status),
      condition := trade_date >= DATEADD(DAY, -7, @execution_ds::TIMESTAMP)::DATE
    ) /* of the week before the run: of all, this would compute the whole view once more */
  )
);

WITH companies AS (
  SELECT
    symbol,
    listing_status,
    first_trade_date,
    last_trade_date
  FROM gold.dim_stock
), sessions AS (
  /* by the calendar, not by the data, or a feed that is dead for all would look complete:
  those that were over half an hour before the run, as its schedule lets the last bars arrive */
  SELECT
    date_day,
    session_minutes,
    MAX(date_day) OVER () AS last_day
  FROM gold.dim_date
  WHERE
    session_close <= DATEADD(MINUTE, -30, @execution_ts::TIMESTAMP)
), bars AS (
  SELECT
    current_symbol AS symbol,
    trade_date,
    bar_interval,
    bar_time,
    is_complete,
    anomaly_reason,
    archive_object,
    source_line
  FROM silver.stock_prices_cleaned
  WHERE
    exchange = 'EGX'
), received AS (
  /* a bar once, under whichever of a company's symbols; a day has one Daily bar, for these start at 10:00 in Cairo */
  SELECT DISTINCT
    symbol,
    trade_date,
    bar_interval,
    1 AS bars
  FROM bars
  WHERE
    bar_interval = 'Daily'
  UNION ALL
  SELECT
    symbol,
    trade_date,
    bar_interval,
    COUNT(*) AS bars
  FROM (
    /* counting distinct times would take longer */
    SELECT DISTINCT
      symbol,
      trade_date,
      bar_interval,
      bar_time
    FROM bars
    WHERE
      bar_interval IN ('1 Minute', '5 Minute', '30 Minute')
  )
  GROUP BY
    symbol,
    trade_date,
    bar_interval
), expected_daily AS (
  /* every session from a company's first day on, a delisted one's until its last; of one that never traded the last session */
  SELECT
    c.symbol,
    d.date_day AS trade_date,
    'Daily' AS bar_interval,
    1 AS bars
  FROM companies AS c
  INNER JOIN sessions AS d
    ON d.date_day >= COALESCE(c.first_trade_date, d.last_day)
  WHERE
    c.listing_status <> 'delisted' OR d.date_day <= c.last_trade_date
), expected AS (
  SELECT
    symbol,
    trade_date,
    bar_interval,
    bars
  FROM expected_daily
  UNION ALL
  /* intraday bars are expected on days that have some: a quiet minute has no bar, so fewer is no fault in itself */
  SELECT
    r.symbol,
    r.trade_date,
    r.bar_interval,
    CEIL(
      d.session_minutes / CASE r.bar_interval WHEN '1 Minute' THEN 1 WHEN '5 Minute' THEN 5 ELSE 30 END
    ) AS bars
  FROM received AS r
  INNER JOIN sessions AS d
    ON r.trade_date = d.date_day
  WHERE
    r.bar_interval <> 'Daily'
), first_rows AS (
  /* the first row from the ex-date on, which is later where the company did not trade on it */
  SELECT
    f.symbol,
    f.trade_date,
    f.close_price,
    f.previous_close,
    a.kind,
    a.ratio
  FROM bronze.corporate_actions AS a
  LEFT JOIN bronze.symbol_history AS r
    ON a.symbol = r.old_symbol
  INNER JOIN gold.fct_stock_daily_prices AS f
    ON COALESCE(r.new_symbol, a.symbol) = f.symbol AND f.trade_date >= a.ex_date
  QUALIFY
    ROW_NUMBER() OVER (PARTITION BY f.symbol, a.ex_date, a.kind ORDER BY f.trade_date) = 1
), steps AS (
  SELECT
    symbol,
    trade_date,
    close_price,
    previous_close,
    LISTAGG(kind, ' and ') WITHIN GROUP (ORDER BY
      kind) AS kinds,
    ROUND(EXP(SUM(LN(ratio))), 6) AS ratio
  FROM first_rows
  GROUP BY
    symbol,
    trade_date,
    close_price,
    previous_close
), checked AS (
  SELECT
    'bars' AS check_name,
    IFF(COALESCE(r.bars, 0) < e.bars * IFF(e.bar_interval = 'Daily', 1, 0.2), 'warn', 'ok') AS status,
    e.symbol,
    e.trade_date,
    e.bars AS expected,
    COALESCE(r.bars, 0) AS received,
    e.bar_interval AS detail
  FROM expected AS e
  LEFT JOIN received AS r
    ON e.symbol = r.symbol
    AND e.trade_date = r.trade_date
    AND e.bar_interval = r.bar_interval
  UNION ALL
  SELECT
    'freshness' AS check_name,
    IFF(COUNT(d.date_day) > 0 AND c.listing_status <> 'delisted', 'warn', 'ok') AS status,
    c.symbol,
    c.last_trade_date AS trade_date,
    0 AS expected,
    COUNT(d.date_day) AS received,
    'trading days since its last row' AS detail
  FROM companies AS c
  LEFT JOIN sessions AS d
    ON d.date_day > c.last_trade_date
  WHERE
    NOT c.last_trade_date IS NULL
  GROUP BY
    c.symbol,
    c.listing_status,
    c.last_trade_date
  UNION ALL
  SELECT
    IFF(anomaly_reason IS NULL, 'incomplete', 'anomaly') AS check_name,
    'warn' AS status,
    symbol,
    trade_date,
    0 AS expected,
    1 AS received,
    bar_interval || ' ' || bar_time::VARCHAR || ' in ' || archive_object || ':' || source_line::VARCHAR || IFF(anomaly_reason IS NULL, '', ': ' || anomaly_reason) AS detail
  FROM bars
  WHERE
    NOT anomaly_reason IS NULL OR NOT is_complete
  UNION ALL
  SELECT
    'missing_field' AS check_name,
    'warn' AS status,
    COALESCE(r.new_symbol, s.symbol) AS symbol,
    s.trade_date,
    0 AS expected,
    COUNT(*) AS received,
    'bars without ' || s.missing_fields AS detail
  FROM silver.stock_prices_streamed AS s
  LEFT JOIN bronze.symbol_history AS r
    ON s.symbol = r.old_symbol
  WHERE
    s.exchange = 'EGX' AND s.missing_fields <> ''
  GROUP BY
    COALESCE(r.new_symbol, s.symbol),
    s.trade_date,
    s.missing_fields
  UNION ALL
  SELECT
    'rejected' AS check_name,
    'warn' AS status,
    symbol,
    COALESCE(@CAIRO_DATE(bar_time), delivered_on) AS trade_date,
    0 AS expected,
    1 AS received,
    archive_object || ':' || source_line::VARCHAR || ': ' || reject_reason AS detail
  FROM bronze.stock_prices_quarantine
  UNION ALL
  SELECT
    'historical_difference' AS check_name,
    'warn' AS status,
    COALESCE(r.new_symbol, s.symbol) AS symbol,
    s.trade_date,
    0 AS expected,
    1 AS received,
    s.bar_interval || ' ' || s.bar_time::VARCHAR || ': streamed close ' || COALESCE(s.close_price::VARCHAR, 'none') || ' volume ' || COALESCE(s.volume::VARCHAR, 'none') || ', in ' || h.archive_object || ' close ' || COALESCE(h.close_price::VARCHAR, 'none') || ' volume ' || COALESCE(h.volume::VARCHAR, 'none') AS detail
  FROM silver.stock_prices_streamed AS s
  INNER JOIN silver.stock_prices_history AS h
    ON s.symbol = h.symbol
    AND s.exchange = h.exchange
    AND s.bar_interval = h.bar_interval
    AND s.bar_time = h.bar_time
  LEFT JOIN bronze.symbol_history AS r
    ON s.symbol = r.old_symbol
  WHERE
    s.exchange = 'EGX'
    AND (
      s.open_price IS DISTINCT FROM h.open_price
      OR s.high_price IS DISTINCT FROM h.high_price
      OR s.low_price IS DISTINCT FROM h.low_price
      OR s.close_price IS DISTINCT FROM h.close_price
      OR COALESCE(
        ABS(s.volume - h.volume) > /* sites round volumes to three digits */ 0.01 * s.volume,
        NOT COALESCE(s.volume, h.volume) IS NULL
      )
    )
  UNION ALL
  SELECT
    'price_jump' AS check_name,
    'warn' AS status,
    symbol,
    trade_date,
    0 AS expected,
    1 AS received,
    'close ' || close_price::VARCHAR || ' after ' || previous_close::VARCHAR AS detail
  FROM gold.fct_stock_daily_prices
  WHERE
    has_unexplained_jump
  UNION ALL
  /* a source that had already re-based its past when it gave it shows no step where the action says one:
  adjusting such prices again would be wrong */
  SELECT
    'no_price_step' AS check_name,
    'warn' AS status,
    symbol,
    trade_date,
    0 AS expected,
    1 AS received,
    kinds || ' of ' || ratio::VARCHAR || ' but the close went from ' || (
      previous_close * ratio
    )::DECIMAL(18, 4)::VARCHAR || ' to ' || close_price::VARCHAR AS detail
  FROM steps
  WHERE
    ABS(LN(close_price / previous_close)) > ABS(LN(close_price / (
      previous_close * ratio
    )))
)
SELECT
  check_name::VARCHAR AS check_name,
  status::VARCHAR AS status,
  symbol::VARCHAR AS symbol,
  trade_date::DATE AS trade_date,
  expected::INT AS expected,
  received::INT AS received,
  detail::VARCHAR AS detail
FROM checked
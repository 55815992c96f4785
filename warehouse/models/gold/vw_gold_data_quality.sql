MODEL (
  name gold.vw_gold_data_quality,
  kind VIEW,
  description 'What is known to be missing or doubtful: one row per check, company and day (and bar or line, where the check is about one). See docs/warehouse.md for the checks.',
  column_descriptions (
    check_name = 'bars, freshness, anomaly, incomplete, missing_field, rejected, historical_difference, price_jump, no_price_step',
    status = 'ok, or warn where somebody should look',
    expected = 'Bars that the calendar lets expect (bars), or 0',
    received = 'Bars received (bars), trading days behind the market (freshness), or how many'
  ),
  grain (check_name, symbol, trade_date, detail),
  audits (
    not_null(columns := (check_name, status))
  )
);

WITH companies AS (
  SELECT
    symbol,
    first_trade_date,
    last_trade_date
  FROM gold.dim_stock
  WHERE
    NOT first_trade_date IS NULL
), market AS (
  SELECT
    MAX(last_trade_date) AS last_day
  FROM companies
), bars AS (
  SELECT
    COALESCE(r.new_symbol, b.symbol) AS symbol,
    b.trade_date,
    b.bar_interval,
    b.bar_time,
    b.close_price,
    b.is_complete,
    b.anomaly_reason,
    b.data_source,
    b.archive_object,
    b.source_line
  FROM silver.stock_prices_cleaned AS b
  LEFT JOIN bronze.symbol_history AS r
    ON b.symbol = r.old_symbol
  WHERE
    b.exchange = 'EGX'
), received AS (
  SELECT
    symbol,
    trade_date,
    bar_interval,
    COUNT(DISTINCT bar_time) AS bars
  FROM bars
  WHERE
    bar_interval IN ('Daily', '1 Minute', '5 Minute', '30 Minute')
  GROUP BY
    symbol,
    trade_date,
    bar_interval
), expected_daily AS (
  /* every trading day from a company's first to the market's last; a delisted one until its own last */
  SELECT
    c.symbol,
    d.date_day AS trade_date,
    'Daily' AS bar_interval,
    1 AS bars
  FROM companies AS c
  CROSS JOIN market AS m
  INNER JOIN gold.dim_stock AS s
    ON c.symbol = s.symbol
  INNER JOIN gold.dim_date AS d
    ON d.date_day BETWEEN c.first_trade_date AND IFF(s.listing_status = 'delisted', c.last_trade_date, m.last_day)
  WHERE
    d.is_trading_day
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
  INNER JOIN gold.dim_date AS d
    ON r.trade_date = d.date_day
  WHERE
    r.bar_interval <> 'Daily'
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
    IFF(COUNT(d.date_day) > 0 AND MAX(s.listing_status) <> 'delisted', 'warn', 'ok') AS status,
    c.symbol,
    c.last_trade_date AS trade_date,
    0 AS expected,
    COUNT(d.date_day) AS received,
    'trading days behind the market\'s latest' AS detail
  FROM companies AS c
  CROSS JOIN market AS m
  INNER JOIN gold.dim_stock AS s
    ON c.symbol = s.symbol
  LEFT JOIN gold.dim_date AS d
    ON d.date_day > c.last_trade_date AND d.date_day <= m.last_day AND d.is_trading_day
  GROUP BY
    c.symbol,
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
    @CAIRO_DATE(s.bar_time) AS trade_date,
    0 AS expected,
    COUNT(*) AS received,
    'bars without ' || s.missing_fields AS detail
  FROM silver.stock_prices_streamed AS s
  LEFT JOIN bronze.symbol_history AS r
    ON s.symbol = r.old_symbol
  WHERE
    s.missing_fields <> ''
  GROUP BY
    COALESCE(r.new_symbol, s.symbol),
    @CAIRO_DATE(s.bar_time),
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
    @CAIRO_DATE(s.bar_time) AS trade_date,
    0 AS expected,
    1 AS received,
    s.bar_interval || ' ' || s.bar_time::VARCHAR || ': streamed close ' || s.close_price::VARCHAR || ' volume ' || COALESCE(s.volume::VARCHAR, 'none') || ', in ' || h.archive_object || ' close ' || h.close_price::VARCHAR || ' volume ' || COALESCE(h.volume::VARCHAR, 'none') AS detail
  FROM silver.stock_prices_streamed AS s
  INNER JOIN silver.stock_prices_history AS h
    ON s.symbol = h.symbol
    AND s.exchange = h.exchange
    AND s.bar_interval = h.bar_interval
    AND s.bar_time = h.bar_time
  LEFT JOIN bronze.symbol_history AS r
    ON s.symbol = r.old_symbol
  WHERE
    s.open_price <> h.open_price
    OR s.high_price <> h.high_price
    OR s.low_price <> h.low_price
    OR s.close_price <> h.close_price
    OR /* sites round volumes to three digits */ ABS(s.volume - h.volume) > 0.01 * s.volume
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
    f.symbol,
    f.trade_date,
    0 AS expected,
    1 AS received,
    a.kind || ' of ' || a.ratio::VARCHAR || ' but the close went from ' || (
      f.previous_close * a.ratio
    )::DECIMAL(18, 4)::VARCHAR || ' to ' || f.close_price::VARCHAR AS detail
  FROM bronze.corporate_actions AS a
  LEFT JOIN bronze.symbol_history AS r
    ON a.symbol = r.old_symbol
  INNER JOIN gold.fct_stock_daily_prices AS f
    ON COALESCE(r.new_symbol, a.symbol) = f.symbol AND a.ex_date = f.trade_date
  WHERE
    ABS(LN(f.close_price / f.previous_close)) > ABS(LN(f.close_price / (
      f.previous_close * a.ratio
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
MODEL (
  name gold.fct_stock_daily_prices,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key (symbol, trade_date),
    lookback 1
  ),
  description 'One row per company and trading day: prices, changes, indicators and signals. Moving windows are computed over the whole past on prices adjusted for corporate actions, then stated on the basis of the day of the row, so that they compare with its prices as traded and do not change when a later action comes. Rows of a company before the first day on which silver.stock_prices_daily has another bar stay.',
  column_descriptions (
    close_price = 'As traded on the day; so are open, high, low and volume',
    adj_close = 'On the basis of today: corrected for the corporate actions after the day; so are the other adj_ columns',
    built_from = 'Daily, or the interval whose bars were rolled up',
    is_rolled_up = 'TRUE where the day had no Daily bar',
    previous_close = 'Close of the previous row of the company, on the basis of this day',
    typical_price = '(high + low + close) / 3',
    ma_7d = 'Mean close of the last 7 trading days; so are ma_30d and ma_200d',
    macd = 'EMA 12 - EMA 26 of the close (Appel 2005); signal: EMA 9 of it',
    rsi_14 = 'Relative strength index with Wilder smoothing (Wilder 1978), 0 to 100',
    bollinger_upper = 'Mean of 20 closes + 2 population standard deviations (Bollinger 2001)',
    atr_14 = 'Average true range, Wilder smoothing (Wilder 1978)',
    obv = 'On-balance volume (Granville 1963), in shares of today',
    high_52w = 'Highest high of the 52 weeks up to the day',
    limit_up_price = 'Highest price allowed: previous close + 20 % (since 2021-09-05), down to a tick',
    has_unexplained_jump = 'TRUE where the close is over 20 % from the previous one, with no corporate action on record; only where the previous row is at most 14 days before, for prices move that far in weeks; before 2021-09-05 too, whose limit is not on record',
    trend_signal = 'BULLISH: close > ma_7d > ma_30d; BEARISH: close < ma_7d < ma_30d; else NEUTRAL; of the averages as they are shown',
    volume_signal = 'HIGH: over 1.5 times volume_ma_7d; LOW: under half of it; else NORMAL'
  ),
  grain (symbol, trade_date),
  audits (
    rows_are_told_apart(key := (symbol, trade_date), given := (symbol, trade_date, close_price)),
    bars_are_possible(time := trade_date),
    jumps_are_explained
  )
);

WITH changes AS (
  /* the first day of each company on which silver has another bar than its row here */
  SELECT
    COALESCE(d.symbol, f.symbol) AS symbol,
    MIN(COALESCE(d.trade_date, f.trade_date)) AS first_day
  FROM silver.stock_prices_daily AS d
  FULL JOIN gold.fct_stock_daily_prices AS f
    ON d.symbol = f.symbol AND d.trade_date = f.trade_date
  WHERE
    @IS_REBUILD()
    OR d.symbol IS NULL
    OR f.symbol IS NULL
    OR d.traded_symbol IS DISTINCT FROM f.traded_symbol
    OR d.open_price IS DISTINCT FROM f.open_price
    OR d.high_price IS DISTINCT FROM f.high_price
    OR d.low_price IS DISTINCT FROM f.low_price
    OR d.close_price IS DISTINCT FROM f.close_price
    OR d.volume IS DISTINCT FROM f.volume
    OR d.built_from IS DISTINCT FROM f.built_from
    OR d.bar_count IS DISTINCT FROM f.bar_count
    OR d.is_final IS DISTINCT FROM f.is_final
    OR d.data_source IS DISTINCT FROM f.data_source
    OR d.ingested_at IS DISTINCT FROM f.ingested_at
    OR d.adjustment_factor IS DISTINCT FROM f.adjustment_factor
  GROUP BY
    COALESCE(d.symbol, f.symbol)
), reaches AS (
  /* the windows of that day reach back over 199 rows and 363 days: where these have fewer rows, to the company's first */
  SELECT
    c.symbol,
    c.first_day,
    MIN(d.trade_date) AS first_date,
    IFF(
      COUNT(
        IFF(
          d.trade_date < c.first_day
          AND d.trade_date >= DATEADD(DAY, -363, c.first_day::TIMESTAMP)::DATE,
          1,
          NULL
        )
      ) >= 199,
      DATEADD(DAY, -363, c.first_day::TIMESTAMP)::DATE,
      MIN(d.trade_date)
    ) AS from_day
  FROM changes AS c
  INNER JOIN silver.stock_prices_daily AS d
    ON c.symbol = d.symbol
  GROUP BY
    c.symbol,
    c.first_day
), traded AS (
  SELECT
    d.*,
    r.first_day,
    r.first_date,
    (
      LAG(d.adj_close) OVER (PARTITION BY d.symbol ORDER BY d.trade_date)
    )::DOUBLE AS adj_previous,
    LAG(d.trade_date) OVER (PARTITION BY d.symbol ORDER BY d.trade_date) AS previous_date
  FROM silver.stock_prices_daily AS d
  INNER JOIN reaches AS r
    ON d.symbol = r.symbol AND d.trade_date >= r.from_day
), windowed AS (
  SELECT
    *,
    @MOVING_AVERAGE(adj_close, 7) AS adj_ma_7d,
    @MOVING_AVERAGE(adj_close, 30) AS adj_ma_30d,
    @MOVING_AVERAGE(adj_close, 200) AS adj_ma_200d,
    @MOVING_AVERAGE(adj_volume, 7) AS adj_volume_ma_7d,
    @MOVING_AVERAGE(adj_close, 20) AS adj_mean_20d,
    @MOVING_DEVIATION(adj_close, 20) AS adj_deviation_20d,
    MAX(adj_high) OVER (
      PARTITION BY symbol
      ORDER BY trade_date
      RANGE BETWEEN INTERVAL '363 DAYS' PRECEDING AND CURRENT ROW
    ) AS adj_high_52w,
    MIN(adj_low) OVER (
      PARTITION BY symbol
      ORDER BY trade_date
      RANGE BETWEEN INTERVAL '363 DAYS' PRECEDING AND CURRENT ROW
    ) AS adj_low_52w,
    trade_date >= DATEADD(DAY, 363, first_date::TIMESTAMP)::DATE AS has_52_weeks
  FROM traded
), own_basis AS (
  /* from the basis of today to that of the row's own day */
  SELECT
    w.*,
    ROUND(w.adj_previous / w.adjustment_factor, 4)::DECIMAL(18, 4) AS previous_close,
    w.adj_ma_7d / w.adjustment_factor AS ma_7d,
    w.adj_ma_30d / w.adjustment_factor AS ma_30d,
    w.adj_ma_200d / w.adjustment_factor AS ma_200d,
    w.adj_volume_ma_7d * w.adjustment_factor AS volume_ma_7d,
    w.adj_mean_20d / w.adjustment_factor AS mean_20d,
    w.adj_deviation_20d / w.adjustment_factor AS deviation_20d,
    IFF(w.has_52_weeks, w.adj_high_52w::DOUBLE / w.adjustment_factor, NULL) AS high_52w,
    IFF(w.has_52_weeks, w.adj_low_52w::DOUBLE / w.adjustment_factor, NULL) AS low_52w,
    m.ema_12 / w.adjustment_factor AS ema_12,
    m.ema_26 / w.adjustment_factor AS ema_26,
    m.macd / w.adjustment_factor AS macd,
    m.macd_signal / w.adjustment_factor AS macd_signal,
    m.rsi_14,
    m.atr_14 / w.adjustment_factor AS atr_14,
    m.obv
  FROM windowed AS w
  LEFT JOIN silver.stock_prices_momentum AS m
    ON w.symbol = m.symbol AND w.trade_date = m.trade_date
  WHERE
    w.trade_date >= w.first_day
), limited AS (
  SELECT
    *,
    CASE
      WHEN trade_date >= '2021-09-05'::DATE
      THEN CASE
        WHEN previous_close * 1.2 >= 2
        THEN FLOOR(previous_close * 1.2 * 100)::DOUBLE / 100
        ELSE FLOOR(previous_close * 1.2 * 1000)::DOUBLE / 1000
      END
    END::DECIMAL(18, 4) AS limit_up_price,
    CASE
      WHEN trade_date >= '2021-09-05'::DATE
      THEN CASE
        WHEN previous_close * 0.8 >= 2
        THEN CEIL(previous_close * 0.8 * 100)::DOUBLE / 100
        ELSE CEIL(previous_close * 0.8 * 1000)::DOUBLE / 1000
      END
    END::DECIMAL(18, 4) AS limit_down_price
  FROM own_basis
)
SELECT
  symbol::VARCHAR AS symbol,
  trade_date::DATE AS trade_date,
  traded_symbol::VARCHAR AS traded_symbol,
  open_price::DECIMAL(18, 4) AS open_price,
  high_price::DECIMAL(18, 4) AS high_price,
  low_price::DECIMAL(18, 4) AS low_price,
  close_price::DECIMAL(18, 4) AS close_price,
  volume::BIGINT AS volume,
  built_from::VARCHAR AS built_from,
  (
    built_from <> 'Daily'
  )::BOOLEAN AS is_rolled_up,
  bar_count::BIGINT AS bar_count,
  is_final::BOOLEAN AS is_final,
  data_source::VARCHAR AS data_source,
  ingested_at::TIMESTAMP AS ingested_at,
  adjustment_factor::DOUBLE AS adjustment_factor,
  adj_open::DECIMAL(18, 6) AS adj_open,
  adj_high::DECIMAL(18, 6) AS adj_high,
  adj_low::DECIMAL(18, 6) AS adj_low,
  adj_close::DECIMAL(18, 6) AS adj_close,
  adj_volume::BIGINT AS adj_volume,
  previous_close::DECIMAL(18, 4) AS previous_close,
  (
    close_price - previous_close
  )::DECIMAL(18, 4) AS price_change,
  ROUND((
    close_price - previous_close
  )::DOUBLE / previous_close::DOUBLE * 100, 4)::DECIMAL(18, 4) AS price_change_pct,
  (
    high_price - low_price
  )::DECIMAL(18, 4) AS price_range,
  ROUND((
    high_price + low_price + close_price
  )::DOUBLE / 3, 4)::DECIMAL(18, 4) AS typical_price,
  ROUND(ma_7d, 4)::DECIMAL(18, 4) AS ma_7d,
  ROUND(ma_30d, 4)::DECIMAL(18, 4) AS ma_30d,
  ROUND(ma_200d, 4)::DECIMAL(18, 4) AS ma_200d,
  ROUND(volume_ma_7d, 4)::DECIMAL(24, 4) AS volume_ma_7d,
  ROUND(ema_12, 6)::DECIMAL(18, 6) AS ema_12,
  ROUND(ema_26, 6)::DECIMAL(18, 6) AS ema_26,
  ROUND(macd, 6)::DECIMAL(18, 6) AS macd,
  ROUND(macd_signal, 6)::DECIMAL(18, 6) AS macd_signal,
  ROUND(macd - macd_signal, 6)::DECIMAL(18, 6) AS macd_histogram,
  ROUND(rsi_14, 4)::DECIMAL(18, 4) AS rsi_14,
  ROUND(mean_20d, 4)::DECIMAL(18, 4) AS bollinger_middle,
  ROUND(mean_20d + 2 * deviation_20d, 4)::DECIMAL(18, 4) AS bollinger_upper,
  ROUND(mean_20d - 2 * deviation_20d, 4)::DECIMAL(18, 4) AS bollinger_lower,
  ROUND(atr_14, 6)::DECIMAL(18, 6) AS atr_14,
  obv::BIGINT AS obv,
  ROUND(high_52w, 4)::DECIMAL(18, 4) AS high_52w,
  ROUND(low_52w, 4)::DECIMAL(18, 4) AS low_52w,
  limit_up_price::DECIMAL(18, 4) AS limit_up_price,
  limit_down_price::DECIMAL(18, 4) AS limit_down_price,
  (
    close_price >= limit_up_price
  )::BOOLEAN AS is_limit_up,
  (
    close_price <= limit_down_price
  )::BOOLEAN AS is_limit_down,
  COALESCE(
    DATEDIFF(DAY, previous_date, trade_date) <= 14
    AND (
      close_price > previous_close * 1.2 + 0.005
      OR close_price < previous_close * 0.8 - 0.005
    ),
    FALSE
  )::BOOLEAN AS has_unexplained_jump,
  CASE
    WHEN ma_30d IS NULL
    THEN NULL
    WHEN close_price > ROUND(ma_7d, 4) AND ROUND(ma_7d, 4) > ROUND(ma_30d, 4)
    THEN 'BULLISH'
    WHEN close_price < ROUND(ma_7d, 4) AND ROUND(ma_7d, 4) < ROUND(ma_30d, 4)
    THEN 'BEARISH'
    ELSE 'NEUTRAL'
  END::VARCHAR AS trend_signal,
  CASE
    WHEN volume IS NULL OR volume_ma_7d IS NULL
    THEN NULL
    WHEN volume > 1.5 * ROUND(volume_ma_7d, 4)
    THEN 'HIGH'
    WHEN volume < 0.5 * ROUND(volume_ma_7d, 4)
    THEN 'LOW'
    ELSE 'NORMAL'
  END::VARCHAR AS volume_signal
FROM limited;

@KEEP_DAYS_OF(silver.stock_prices_daily)
MODEL (
  name silver.stock_prices_daily,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key (symbol, trade_date),
    lookback 1
  ),
  description 'One row per company and trading day: its Daily bar, or its intraday bars rolled up where there is none, with the factor that puts it on the basis of today. A day with a bar delivered in the interval is made again as a whole.',
  column_descriptions (
    symbol = 'Symbol the company trades under now',
    traded_symbol = 'Symbol of that day',
    built_from = 'Daily, or the interval that was rolled up: 1 Minute before 5 before 30 Minute',
    bar_count = 'Bars that went into the row',
    data_source = 'STREAMING or HISTORICAL; MIXED where bars of both were rolled up',
    adjustment_factor = 'Product of 1 / ratio over the corporate actions after that day'
  ),
  grain (symbol, trade_date),
  audits (
    rows_are_told_apart(
      key := (symbol, trade_date),
      given := (symbol, trade_date, close_price, adjustment_factor)
    )
  )
);

WITH changed AS (
  /* company days with a bar delivered in the interval. A file's time says nothing about when it was put there or taken away:
  days that have one of its bars, or had one, are always made again */
  SELECT
    b.current_symbol AS symbol,
    b.trade_date
  FROM silver.stock_prices_cleaned AS b
  WHERE
    b.delivered_on BETWEEN @start_ds AND @end_ds OR b.data_source = 'HISTORICAL'
  UNION
  SELECT
    d.symbol,
    d.trade_date
  FROM silver.stock_prices_daily AS d
  WHERE
    d.data_source <> 'STREAMING'
), usable AS (
  SELECT
    usable_bars.*
  FROM @USABLE_BARS()
  INNER JOIN changed AS c
    ON usable_bars.symbol = c.symbol AND usable_bars.trade_date = c.trade_date
), rolled AS (
  SELECT
    symbol,
    traded_symbol,
    trade_date,
    bar_interval,
    IFF(MIN(data_source) = MAX(data_source), MAX(data_source), 'MIXED') AS data_source,
    MIN_BY(open_price, bar_time) AS open_price,
    MAX(high_price) AS high_price,
    MIN(low_price) AS low_price,
    MAX_BY(close_price, bar_time) AS close_price,
    SUM(volume) AS volume,
    COUNT(*) AS bar_count,
    MAX(ingested_at) AS ingested_at
  FROM usable
  WHERE
    bar_interval <> 'Daily'
  GROUP BY
    symbol,
    traded_symbol,
    trade_date,
    bar_interval
), candidates AS (
  SELECT
    symbol,
    traded_symbol,
    trade_date,
    bar_interval AS built_from,
    open_price,
    high_price,
    low_price,
    close_price,
    volume,
    1 AS bar_count,
    is_final,
    data_source,
    ingested_at
  FROM usable
  WHERE
    bar_interval = 'Daily'
  UNION ALL
  SELECT
    symbol,
    traded_symbol,
    trade_date,
    bar_interval AS built_from,
    open_price,
    high_price,
    low_price,
    close_price,
    volume,
    bar_count,
    NULL AS is_final,
    data_source,
    ingested_at
  FROM rolled
), chosen AS (
  SELECT
    *
  FROM candidates
  QUALIFY
    ROW_NUMBER() OVER (
      PARTITION BY symbol, trade_date
      ORDER BY CASE built_from
        WHEN 'Daily'
        THEN 0
        WHEN '1 Minute'
        THEN 1
        WHEN '5 Minute'
        THEN 2
        ELSE 3
      END, data_source DESC /* STREAMING before MIXED before HISTORICAL */, IFF(traded_symbol = symbol, 0, 1) /* on the days of a renaming the new symbol's row */, ingested_at DESC, traded_symbol
    ) = 1
), actions AS (
  SELECT
    COALESCE(r.new_symbol, a.symbol) AS symbol,
    a.ex_date,
    SUM(LN(a.ratio)) AS log_ratio
  FROM bronze.corporate_actions AS a
  LEFT JOIN bronze.symbol_history AS r
    ON a.symbol = r.old_symbol
  GROUP BY
    COALESCE(r.new_symbol, a.symbol),
    a.ex_date
), factors AS (
  /* one row per company and ex-date: the factor of the days from the ex-date before it up to the day before it */
  SELECT
    symbol,
    ex_date,
    COALESCE(LAG(ex_date) OVER (PARTITION BY symbol ORDER BY ex_date), '1900-01-01'::DATE) AS from_date,
    ROUND(
      EXP(
        -SUM(log_ratio) OVER (
          PARTITION BY symbol
          ORDER BY ex_date DESC
          ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        )
      ),
      12
    ) AS factor
  FROM actions
)
SELECT
  c.symbol::VARCHAR AS symbol,
  c.trade_date::DATE AS trade_date,
  c.traded_symbol::VARCHAR AS traded_symbol,
  c.open_price::DECIMAL(18, 4) AS open_price,
  c.high_price::DECIMAL(18, 4) AS high_price,
  c.low_price::DECIMAL(18, 4) AS low_price,
  c.close_price::DECIMAL(18, 4) AS close_price,
  c.volume::BIGINT AS volume,
  c.built_from::VARCHAR AS built_from,
  c.bar_count::BIGINT AS bar_count,
  c.is_final::BOOLEAN AS is_final,
  c.data_source::VARCHAR AS data_source,
  c.ingested_at::TIMESTAMP AS ingested_at,
  COALESCE(f.factor, 1)::DOUBLE AS adjustment_factor,
  (
    c.open_price::DOUBLE * COALESCE(f.factor, 1)
  )::DECIMAL(18, 8) AS adj_open,
  (
    c.high_price::DOUBLE * COALESCE(f.factor, 1)
  )::DECIMAL(18, 8) AS adj_high,
  (
    c.low_price::DOUBLE * COALESCE(f.factor, 1)
  )::DECIMAL(18, 8) AS adj_low,
  (
    c.close_price::DOUBLE * COALESCE(f.factor, 1)
  )::DECIMAL(18, 8) AS adj_close,
  ROUND(c.volume / COALESCE(f.factor, 1), 0)::BIGINT AS adj_volume
FROM chosen AS c
LEFT JOIN factors AS f
  ON c.symbol = f.symbol AND c.trade_date >= f.from_date AND c.trade_date < f.ex_date;

@KEEP_DAYS_OF(@USABLE_BARS())
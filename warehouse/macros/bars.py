"""Expressions over a bar's record that more than one model needs."""

from sqlglot import exp, parse_one
from sqlmesh import macro


@macro()
def utc(evaluator, text: exp.Expression):
    """@UTC(text): an ISO time as UTC without zone. A naive time is Africa/Cairo, as older producers wrote it."""
    value = text.sql(dialect="snowflake")
    return parse_one(
        f"""
        CASE
          WHEN {value} LIKE '%Z'
          THEN TRY_CAST(REPLACE({value}, 'Z', '') AS TIMESTAMP_NTZ)
          WHEN REGEXP_LIKE({value}, '.*:.*[+-][0-9][0-9](:?[0-9][0-9])?')
          THEN CONVERT_TIMEZONE('UTC', TRY_CAST({value} AS TIMESTAMP_TZ))::TIMESTAMP_NTZ
          ELSE CONVERT_TIMEZONE('Africa/Cairo', 'UTC', TRY_CAST({value} AS TIMESTAMP_NTZ))
        END
        """,
        dialect="snowflake",
    )


@macro()
def cairo_date(evaluator, time: exp.Expression):
    """@CAIRO_DATE(bar_time): the exchange's calendar day of a UTC time."""
    return parse_one(f"CONVERT_TIMEZONE('UTC', 'Africa/Cairo', {time.sql(dialect='snowflake')})::DATE", dialect="snowflake")


@macro()
def opening(evaluator, day: exp.Expression):
    """@OPENING(trade_date): 10:00 in Cairo on that day, as UTC: where a Daily bar starts."""
    return parse_one(
        f"CONVERT_TIMEZONE('Africa/Cairo', 'UTC', DATEADD(HOUR, 10, {day.sql(dialect='snowflake')}::TIMESTAMP_NTZ))",
        dialect="snowflake",
    )


@macro()
def cairo_time(evaluator, day: exp.Expression, time: exp.Expression):
    """@CAIRO_TIME(date_day, '10:00'): that wall-clock time in Cairo on that day, as UTC."""
    day_sql, time_sql = day.sql(dialect="snowflake"), time.sql(dialect="snowflake")
    return parse_one(
        f"CONVERT_TIMEZONE('Africa/Cairo', 'UTC', ({day_sql}::VARCHAR || ' ' || {time_sql} || ':00')::TIMESTAMP_NTZ)",
        dialect="snowflake",
    )


@macro()
def usable_bars(evaluator):
    """FROM @USABLE_BARS(): the bars that daily rows are made of, as usable_bars, each under its company's symbol of today."""
    return parse_one(
        """
        SELECT
          current_symbol AS symbol,
          symbol AS traded_symbol,
          bar_interval,
          bar_time,
          trade_date,
          open_price,
          high_price,
          low_price,
          close_price,
          volume,
          is_final,
          data_source,
          ingested_at
        FROM silver.stock_prices_cleaned
        WHERE
          exchange = 'EGX'
          AND bar_interval IN ('Daily', '1 Minute', '5 Minute', '30 Minute')
          AND NOT has_anomaly
          AND NOT open_price IS NULL
          AND NOT high_price IS NULL
          AND NOT low_price IS NULL
          AND NOT close_price IS NULL
        """,
        dialect="snowflake",
    ).subquery("usable_bars")

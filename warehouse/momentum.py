"""The rows of silver.stock_prices_momentum: which bars they are computed from, and what they go on from."""

# ruff: noqa: S608 -- SQL of the project's own names; no outsider's text is in it

import pandas as pd
from indicators import STATE, momentum

BAR = ("high", "low", "close")


def changed_bars(daily: str, own: str, is_rebuild: bool = False) -> str:
    """The query of the bars from each company's first changed day on, after the day before with its indicators.

    A day is changed where `daily` has another bar than the row in `own` was computed from, or only one of them has the day. Where
    the day before has no signal of MACD yet, the last to come, a company's bars are taken from its first.

    Args:
        daily: table silver.stock_prices_daily.
        own: table silver.stock_prices_momentum as it is.
        is_rebuild: all bars are wanted, whatever rows `own` has.
    """
    differs = " OR ".join(f"d.adj_{column}::DOUBLE <> m.adj_{column}" for column in BAR)
    bar = ", ".join(f"d.adj_{column}::DOUBLE AS {column}" for column in BAR)
    state = ", ".join(f"m.{column}" for column in STATE if column != "obv")
    return f"""
        WITH changes AS (
          SELECT COALESCE(d.symbol, m.symbol) AS symbol, MIN(COALESCE(d.trade_date, m.trade_date)) AS first_day
          FROM {daily} AS d
          FULL JOIN {own} AS m ON d.symbol = m.symbol AND d.trade_date = m.trade_date
          WHERE {is_rebuild} OR d.symbol IS NULL OR m.symbol IS NULL OR {differs} OR COALESCE(d.adj_volume, 0) <> m.adj_volume
          GROUP BY COALESCE(d.symbol, m.symbol)
        ), starts AS (
          SELECT c.symbol, MAX(m.trade_date) AS known_day
          FROM changes AS c
          LEFT JOIN {own} AS m ON c.symbol = m.symbol AND m.trade_date < c.first_day AND m.macd_signal IS NOT NULL
          GROUP BY c.symbol
        )
        SELECT
          d.symbol, d.trade_date, {bar}, COALESCE(d.adj_volume, 0)::BIGINT AS volume,
          m.symbol IS NOT NULL AS is_known, {state}, COALESCE(m.obv, 0)::BIGINT AS obv
        FROM starts AS s
        JOIN {daily} AS d ON s.symbol = d.symbol AND d.trade_date >= COALESCE(s.known_day, '1900-01-01'::DATE)
        LEFT JOIN {own} AS m ON d.symbol = m.symbol AND d.trade_date = m.trade_date AND m.trade_date = s.known_day
        ORDER BY d.symbol, d.trade_date
    """


def computed_rows(bars: pd.DataFrame) -> pd.DataFrame:
    """The rows of the bars that `changed_bars` gives, without those that are known."""
    bars.columns = [column.lower() for column in bars.columns]
    rows = momentum(bars).assign(**{f"adj_{column}": bars[column] for column in (*BAR, "volume")})
    return rows[~bars["is_known"].astype(bool)].rename(columns=str.upper)

"""Exponential indicators over the daily bars of many symbols at once.

Definitions: EMA with alpha = 2 / (n + 1), begun with the mean of the first n values; MACD = EMA 12 - EMA 26 and its signal
the EMA 9 of it (Appel, Technical Analysis: Power Tools for Active Investors, 2005); RSI and ATR with Wilder's smoothing,
alpha = 1 / n, begun with the mean of the first n changes or true ranges (Wilder, New Concepts in Technical Trading Systems,
1978). NULL until the first mean is there. On-balance volume: the sum of the volumes of days that rose less that of days that
fell (Granville, New Key to Stock Market Profits, 1963).

Each of them needs a company's whole past, or what it was on one day and the days after it: so a computation may go on from a
day whose indicators are known, and gives the same numbers to the last bit.
"""

import numpy as np
import pandas as pd

# What a day must know for the days after it to be computed.
STATE = ("ema_12", "ema_26", "macd_signal", "average_gain", "average_loss", "atr_14", "obv")


def smoothed(values: pd.Series, symbol: pd.Series, days: int, alpha: float, known: pd.Series | None = None) -> pd.Series:
    """y[t] = y[t-1] + alpha * (x[t] - y[t-1]) in each symbol, begun with the mean of its first `days` values or a known y.

    Args:
        values: one value a trading day, in the symbol's order; NaN only before the first value of a symbol.
        symbol: which symbol each value belongs to; a symbol's values stand together.
        days: how many values the first mean takes.
        alpha: weight of the newest value, in (0, 1].
        known: y of the first day of the symbols that go on from one, NaN elsewhere.
    """
    there = values.notna()
    rank = there.groupby(symbol, sort=False).cumsum()
    # the sum of the first `days` values, held at the row of the last of them
    first = values.where(there & (rank <= days), 0.0).groupby(symbol, sort=False).cumsum() / days
    seeded = values.where(rank > days).mask(there & (rank == days), first)
    if known is not None:
        goes_on = symbol.isin(symbol[known.notna()])
        seeded = seeded.mask(goes_on, values).mask(known.notna(), known)
    return seeded.groupby(symbol, sort=False).ewm(alpha=alpha, adjust=False).mean().reset_index(level=0, drop=True)


def momentum(bars: pd.DataFrame) -> pd.DataFrame:
    """EMA 12 and 26, MACD and signal, RSI 14, ATR 14, on-balance volume.

    Args:
        bars: columns symbol, trade_date, high, low, close (float), volume (int), ordered by symbol and trade_date. With the
            columns STATE a company's first row may have its indicators already, those of the others are NaN (obv: 0): the
            rows after it are then computed from it.
    Returns:
        symbol, trade_date, the indicators and the means that RSI is made of, in the order of `bars`.
    """
    close = bars["close"]
    symbol = pd.Series(pd.factorize(bars["symbol"])[0], bars.index)  # numbers, which group faster than names
    known = {name: bars[name].astype(float) for name in STATE if name in bars}
    ema_12 = smoothed(close, symbol, 12, 2 / 13, known.get("ema_12"))
    ema_26 = smoothed(close, symbol, 26, 2 / 27, known.get("ema_26"))
    macd = ema_12 - ema_26

    previous = close.groupby(symbol, sort=False).shift()
    change = close - previous
    gain = smoothed(change.clip(lower=0), symbol, 14, 1 / 14, known.get("average_gain"))
    loss = smoothed(-change.clip(upper=0), symbol, 14, 1 / 14, known.get("average_loss"))
    # no change at all in the whole past: as far from the top as from the bottom
    rsi = (100 * (gain / (gain + loss))).mask(gain + loss == 0, 50.0)

    true_range = np.maximum(bars["high"], previous) - np.minimum(bars["low"], previous)
    step = np.sign(change).fillna(0).astype("int64") * bars["volume"].astype("int64")
    obv = step + bars["obv"].astype("int64") if "obv" in bars else step
    return pd.DataFrame(
        {
            "symbol": bars["symbol"],
            "trade_date": bars["trade_date"],
            "ema_12": ema_12,
            "ema_26": ema_26,
            "macd": macd,
            "macd_signal": smoothed(macd, symbol, 9, 2 / 10, known.get("macd_signal")),
            "average_gain": gain,
            "average_loss": loss,
            "rsi_14": rsi,
            "atr_14": smoothed(true_range, symbol, 14, 1 / 14, known.get("atr_14")),
            "obv": obv.groupby(symbol, sort=False).cumsum(),
        }
    )

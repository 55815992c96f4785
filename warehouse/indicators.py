"""Exponential indicators over the daily bars of many symbols at once.

Definitions: EMA with alpha = 2 / (n + 1), begun with the mean of the first n values; MACD = EMA 12 - EMA 26 and its signal
the EMA 9 of it (Appel, Technical Analysis: Power Tools for Active Investors, 2005); RSI and ATR with Wilder's smoothing,
alpha = 1 / n, begun with the mean of the first n changes or true ranges (Wilder, New Concepts in Technical Trading Systems,
1978). NULL until the first mean is there.
"""

import numpy as np
import pandas as pd


def smoothed(values: pd.Series, symbol: pd.Series, days: int, alpha: float) -> pd.Series:
    """y[t] = y[t-1] + alpha * (x[t] - y[t-1]) in each symbol, begun with the mean of its first `days` values.

    Args:
        values: one value a trading day, in the symbol's order; NaN only before the first value of a symbol.
        symbol: which symbol each value belongs to; a symbol's values stand together.
        days: how many values the first mean takes.
        alpha: weight of the newest value, in (0, 1].
    """
    there = values.notna()
    rank = there.groupby(symbol, sort=False).cumsum()
    # the sum of the first `days` values, held at the row of the last of them
    first = values.where(there & (rank <= days), 0.0).groupby(symbol, sort=False).cumsum() / days
    seeded = values.where(rank > days).mask(there & (rank == days), first)
    return seeded.groupby(symbol, sort=False).ewm(alpha=alpha, adjust=False).mean().reset_index(level=0, drop=True)


def momentum(bars: pd.DataFrame) -> pd.DataFrame:
    """EMA 12 and 26, MACD and signal, RSI 14, ATR 14.

    Args:
        bars: columns symbol, trade_date, high, low, close (float), ordered by symbol and trade_date.
    Returns:
        symbol, trade_date and the six indicators, in the order of `bars`.
    """
    symbol, close = bars["symbol"], bars["close"]
    ema_12 = smoothed(close, symbol, 12, 2 / 13)
    ema_26 = smoothed(close, symbol, 26, 2 / 27)
    macd = ema_12 - ema_26

    previous = close.groupby(symbol, sort=False).shift()
    change = close - previous
    gain = smoothed(change.clip(lower=0), symbol, 14, 1 / 14)
    loss = smoothed(-change.clip(upper=0), symbol, 14, 1 / 14)
    # no change at all in the whole past: as far from the top as from the bottom
    rsi = (100 * (gain / (gain + loss))).mask(gain + loss == 0, 50.0)

    true_range = np.maximum(bars["high"], previous) - np.minimum(bars["low"], previous)
    return pd.DataFrame(
        {
            "symbol": symbol,
            "trade_date": bars["trade_date"],
            "ema_12": ema_12,
            "ema_26": ema_26,
            "macd": macd,
            "macd_signal": smoothed(macd, symbol, 9, 2 / 10),
            "rsi_14": rsi,
            "atr_14": smoothed(true_range, symbol, 14, 1 / 14),
        }
    )

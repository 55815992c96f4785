"""The daily columns of gold, computed with pandas and TA-Lib and none of the project's code."""

import datetime as dt
import typing as t
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
import pandas as pd
import talib

EXACT = ("open_price", "high_price", "low_price", "close_price", "volume", "adj_volume", "obv", "limit_up_price",
         "limit_down_price", "is_limit_up", "is_limit_down", "has_unexplained_jump", "trend_signal", "volume_signal")  # fmt: skip
ROUNDED = ("adjustment_factor", "adj_open", "adj_high", "adj_low", "adj_close", "previous_close", "price_change",
           "price_change_pct", "price_range", "typical_price", "ma_7d", "ma_30d", "ma_200d", "volume_ma_7d", "ema_12", "ema_26",
           "macd", "macd_signal", "macd_histogram", "rsi_14", "bollinger_middle", "bollinger_upper", "bollinger_lower", "atr_14",
           "high_52w", "low_52w")  # fmt: skip
DECIMALS = 0.5e-4 + 2e-6  # both sides rounded to 4 decimals, adjusted prices to 8


def limit(previous: float, share: str, rounding: str) -> float:
    """A day's highest or lowest price: a share of the previous close, in ticks of 0.01 from 2.00 on, else of 0.001."""
    if previous != previous:
        return previous
    price = Decimal(f"{previous:.4f}") * Decimal(share)
    return float(price.quantize(Decimal("0.01") if price >= 2 else Decimal("0.001"), rounding))


def after(values: np.ndarray, first: int, indicator: t.Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """An indicator of values that begin at a position; NaN before it, and where TA-Lib has too few of them."""
    found = np.full(len(values), np.nan)
    if len(values) > first:
        found[first:] = indicator(values[first:])
    return found


def daily_columns(bars: pd.DataFrame, factor: np.ndarray) -> pd.DataFrame:
    """A company's rows of gold.fct_stock_daily_prices.

    Args:
        bars: trade_date (datetime64), open, high, low, close (as traded) and volume (NaN where unknown), oldest first.
        factor: what each day's prices are multiplied by to be on the basis of today.
    """
    high, low, close = (bars[name].to_numpy(float) * factor for name in ("high", "low", "close"))
    adjusted = pd.DataFrame(
        {"high": high, "low": low, "close": close, "volume": np.rint(bars["volume"] / factor)},
    ).set_index(pd.DatetimeIndex(bars["trade_date"]))
    change = adjusted["close"].diff()
    year = adjusted.index >= adjusted.index[0] + pd.Timedelta(days=363)
    macd = talib.EMA(close, 12) - talib.EMA(close, 26)
    signal = after(macd, 25, lambda values: talib.EMA(values, 9))
    few = np.full(len(close), np.nan)
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    on_basis = {  # on the basis of today, then of the row's own day
        "previous_close": adjusted["close"].shift(),
        "ma_7d": adjusted["close"].rolling(7).mean(),
        "ma_30d": adjusted["close"].rolling(30).mean(),
        "ma_200d": adjusted["close"].rolling(200).mean(),
        "ema_12": talib.EMA(close, 12),
        "ema_26": talib.EMA(close, 26),
        "macd": macd,
        "macd_signal": signal,
        "macd_histogram": macd - signal,
        "atr_14": talib.ATR(high, low, close, 14) if len(close) > 14 else few,
        "bollinger_middle": middle,
        "bollinger_upper": upper,
        "bollinger_lower": lower,
        "high_52w": adjusted["high"].rolling("364D").max().where(year),
        "low_52w": adjusted["low"].rolling("364D").min().where(year),
    }
    made = pd.DataFrame({name: np.asarray(values) / factor for name, values in on_basis.items()})
    made["previous_close"] = made["previous_close"].round(4)  # what changes and limits are taken from
    for name in ("open", "high", "low", "close"):
        made[f"{name}_price"] = bars[name].to_numpy(float)
    made["volume"] = bars["volume"].to_numpy(float)
    made["adjustment_factor"] = factor
    for name in ("open", "high", "low", "close"):
        made[f"adj_{name}"] = bars[name].to_numpy(float) * factor
    made["adj_volume"] = adjusted["volume"].to_numpy()
    made["volume_ma_7d"] = adjusted["volume"].rolling(7).mean().to_numpy() * factor
    made["obv"] = (np.sign(change) * adjusted["volume"]).fillna(0).cumsum().to_numpy()
    made["rsi_14"] = talib.RSI(close, 14) if len(close) > 14 else few
    made["price_change"] = made["close_price"] - made["previous_close"]
    made["price_change_pct"] = made["price_change"] / made["previous_close"] * 100
    made["price_range"] = made["high_price"] - made["low_price"]
    made["typical_price"] = (made["high_price"] + made["low_price"] + made["close_price"]) / 3
    made["limit_up_price"] = [limit(value, "1.2", ROUND_FLOOR) for value in made["previous_close"]]
    made["limit_down_price"] = [limit(value, "0.8", ROUND_CEILING) for value in made["previous_close"]]
    made["is_limit_up"] = (made["close_price"] >= made["limit_up_price"]).where(made["limit_up_price"].notna(), None)
    made["is_limit_down"] = (made["close_price"] <= made["limit_down_price"]).where(made["limit_up_price"].notna(), None)
    made["has_unexplained_jump"] = (made["price_change"].abs() > made["previous_close"] * 0.2 + 0.005) & (
        adjusted.index.to_series().diff() <= pd.Timedelta(days=14)
    ).to_numpy()
    shown = made[["ma_7d", "ma_30d", "volume_ma_7d"]].round(4)  # a tie is a tie, whatever the last bit says
    made["trend_signal"] = np.select(
        [
            made["ma_30d"].isna(),
            (made["close_price"] > shown["ma_7d"]) & (shown["ma_7d"] > shown["ma_30d"]),
            (made["close_price"] < shown["ma_7d"]) & (shown["ma_7d"] < shown["ma_30d"]),
        ],
        [None, "BULLISH", "BEARISH"],
        "NEUTRAL",
    )
    made["volume_signal"] = np.select(
        [
            made["volume"].isna() | made["volume_ma_7d"].isna(),
            made["volume"] > 1.5 * shown["volume_ma_7d"],
            made["volume"] < 0.5 * shown["volume_ma_7d"],
        ],
        [None, "HIGH", "LOW"],
        "NORMAL",
    )
    return made


def compare(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """All columns of rows in the same order; both sides may say NULL in their own way."""
    for name in EXACT:
        ours, theirs = found[name].astype(object), expected[name].astype(object)
        both = pd.DataFrame({"ours": ours.where(ours.notna(), None), "theirs": theirs.where(theirs.notna(), None)})
        different = both[both["ours"].map(plain) != both["theirs"].map(plain)]
        assert different.empty, f"{name}: {different.head()}"
    for name in ROUNDED:
        np.testing.assert_allclose(
            found[name].astype(float), expected[name].astype(float), rtol=1e-12, atol=DECIMALS, err_msg=name
        )


def plain(value: t.Any) -> t.Any:
    return round(float(value), 4) if isinstance(value, Decimal | float | int) and not isinstance(value, bool) else str(value)


def random_walk(days: list[dt.date], seed: int) -> pd.DataFrame:
    """A company's daily bars, in whole piastres, the last day without a volume."""
    random = np.random.default_rng(seed)
    close = np.round(60 * np.exp(np.cumsum(random.normal(0, 0.02, len(days)))), 2)
    first = np.round(close * random.uniform(0.99, 1.01, len(days)), 2)
    volume = random.integers(10_000, 2_000_000, len(days)).astype(float)
    volume[-1] = np.nan
    return pd.DataFrame({
        "trade_date": pd.to_datetime(days), "open": first, "close": close, "volume": volume,
        "high": np.round(np.maximum(first, close) * random.uniform(1, 1.02, len(days)), 2),
        "low": np.round(np.minimum(first, close) * random.uniform(0.98, 1, len(days)), 2),
    })  # fmt: skip

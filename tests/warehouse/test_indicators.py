"""Indicators against TA-Lib, on random walks, and against plain loops."""

import datetime as dt

import numpy as np
import pandas as pd
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.indicators import STATE, momentum, smoothed


def walk(seed: int, days: int, symbol: str) -> pd.DataFrame:
    """A company's daily bars: prices in whole piastres, as traded."""
    random = np.random.default_rng(seed)
    close = np.round(np.maximum(random.uniform(1, 90) * np.exp(np.cumsum(random.normal(0, 0.02, days))), 0.05), 2)
    high, low = np.round(close * (1 + random.uniform(0, 0.02, days)), 2), np.round(close * (1 - random.uniform(0, 0.02, days)), 2)
    first = dt.date(2024, 1, 1)
    return pd.DataFrame({
        "symbol": symbol, "trade_date": [first + dt.timedelta(day) for day in range(days)],
        "high": high, "low": low, "close": close, "volume": random.integers(0, 2**33, days),
    })  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 300), min_size=1, max_size=4))
def test_momentum_equals_ta_lib(seed: int, lengths: list[int]) -> None:
    companies = [walk(seed + number, days, f"S{number}") for number, days in enumerate(lengths)]
    found = momentum(pd.concat(companies, ignore_index=True))
    for number, bars in enumerate(companies):
        ours = found[found["symbol"] == f"S{number}"]
        high, low, close = (bars[name].to_numpy(float) for name in ("high", "low", "close"))
        macd = talib.EMA(close, 12) - talib.EMA(close, 26)
        expected = {"ema_12": talib.EMA(close, 12), "ema_26": talib.EMA(close, 26), "macd": macd,
                    "macd_signal": np.full(len(close), np.nan)}  # fmt: skip
        if len(close) >= 34:
            expected["macd_signal"][25:] = talib.EMA(macd[25:], 9)
        if len(close) > 14:
            expected |= {"rsi_14": talib.RSI(close, 14), "atr_14": talib.ATR(high, low, close, 14)}
        for name, values in expected.items():
            np.testing.assert_allclose(ours[name].to_numpy(float), values, rtol=1e-9, atol=1e-9, err_msg=name)
        # TA-Lib begins with the first day's volume, we with 0
        volume = bars["volume"].to_numpy(float)
        assert ours["obv"].to_numpy().tolist() == (talib.OBV(close, volume) - volume[0]).tolist()
        if len(close) <= 14:
            assert ours[["rsi_14", "atr_14"]].isna().all(axis=None)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(35, 200), st.integers(0, 200)), min_size=1, max_size=4),
    st.integers(1, 60),
)
def test_going_on_from_any_day_gives_the_same_bits(seed: int, lengths: list[tuple[int, int]], days: int) -> None:
    """Companies whose indicators are known up to a day, and one that has none yet."""
    companies = [walk(seed + number, known + new, f"S{number}") for number, (known, new) in enumerate(lengths)]
    young = walk(seed, days, "YOUNG")
    whole = momentum(pd.concat([*companies, young], ignore_index=True))
    parts = []
    for number, (bars, (known, _)) in enumerate(zip(companies, lengths, strict=True)):
        state = whole.loc[whole["symbol"] == f"S{number}", list(STATE)].iloc[known - 1 :].reset_index(drop=True)
        state.iloc[1:] = np.nan
        parts.append(pd.concat([bars.iloc[known - 1 :].reset_index(drop=True), state], axis="columns"))
    gone_on = pd.concat([*parts, young], ignore_index=True)
    gone_on["obv"] = gone_on["obv"].fillna(0)
    found = momentum(gone_on)
    expected = whole.merge(gone_on[["symbol", "trade_date"]])
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.integers(1, 12))
def test_smoothing_equals_its_definition(values: list[float], days: int) -> None:
    expected: list[float] = []
    for position, value in enumerate(values):
        if position < days - 1:
            expected.append(float("nan"))
        elif position == days - 1:
            expected.append(sum(values[:days]) / days)
        else:
            expected.append(expected[-1] + (value - expected[-1]) / days)
    found = smoothed(pd.Series(values), pd.Series(["S"] * len(values)), days, 1 / days)
    np.testing.assert_allclose(found.to_numpy(float), expected, rtol=1e-9, atol=1e-9)


def test_a_price_that_never_moves_is_neither_strong_nor_weak() -> None:
    bars = walk(1, 40, "S").assign(close=5.0, high=5.0, low=5.0)
    found = momentum(bars)
    assert found["rsi_14"].dropna().unique().tolist() == [50.0]
    assert found["atr_14"].dropna().unique().tolist() == [0.0]

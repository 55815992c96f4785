"""Real bars through bronze, silver and gold equal an independent computation with pandas and TA-Lib."""

# ruff: noqa: E501 -- SQL stays on one line

import os
import typing as t
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib
from archives import deliver, real_minutes

DATA = os.environ.get("EGX_DATA_DIR", "")
pytestmark = pytest.mark.skipif(not DATA, reason="EGX_DATA_DIR does not name the folder of real bars")

SYMBOLS = ("COMI", "ETEL", "SWDY")
DECIMALS = 0.5e-4 + 1e-6  # both sides rounded to 4 decimals, adjusted prices to 8


@pytest.fixture
def minutes() -> pd.DataFrame:
    frames = [pd.read_csv(Path(DATA) / "intraday_1m" / f"{symbol}.csv.gz") for symbol in SYMBOLS]
    bars = pd.concat(frames, ignore_index=True)
    bars["trade_date"] = bars["ts_cairo"].str[:10]
    return bars


def expected_daily(minutes: pd.DataFrame) -> pd.DataFrame:
    """Daily bars and indicators without any of the project's code; a window of float64 prices."""
    daily = minutes.sort_values(["symbol", "ts_utc"]).groupby(["symbol", "trade_date"], as_index=False).agg(
        open=("open", "first"), high=("high", "max"), low=("low", "min"), close=("close", "last"), volume=("volume", "sum")
    )  # fmt: skip
    parts = []
    for _, one in daily.groupby("symbol"):
        close, high, low = (one[name].to_numpy(float) for name in ("close", "high", "low"))
        macd = talib.EMA(close, 12) - talib.EMA(close, 26)
        signal = np.full(len(close), np.nan)
        signal[25:] = talib.EMA(macd[25:], 9)
        upper, _, lower = talib.BBANDS(close, 20, 2, 2)
        parts.append(one.assign(
            ma_7d=one["close"].rolling(7).mean(), ma_30d=one["close"].rolling(30).mean(), macd=macd, macd_signal=signal,
            ema_12=talib.EMA(close, 12), ema_26=talib.EMA(close, 26), rsi_14=talib.RSI(close, 14), atr_14=talib.ATR(high, low, close, 14),
            bollinger_upper=upper, bollinger_lower=lower, price_change_pct=one["close"].pct_change() * 100,
            volume_ma_7d=one["volume"].rolling(7).mean(),
        ))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_real_minutes_become_the_days_that_pandas_computes(make_warehouse: t.Any, minutes: pd.DataFrame) -> None:
    warehouse = make_warehouse()
    deliver(warehouse.archive, real_minutes(Path(DATA), SYMBOLS))
    warehouse.plan()
    expected = expected_daily(minutes)
    found = warehouse.context.engine_adapter.fetchdf(
        "SELECT * FROM gold.fct_stock_daily_prices WHERE is_rolled_up ORDER BY symbol, trade_date"
    )
    found.columns = [column.lower() for column in found.columns]
    assert len(found) == len(expected)
    assert found["symbol"].tolist() == expected["symbol"].tolist()
    assert found["trade_date"].astype(str).str[:10].tolist() == expected["trade_date"].tolist()
    for theirs, ours in (
        ("open", "open_price"),
        ("high", "high_price"),
        ("low", "low_price"),
        ("close", "close_price"),
        ("volume", "volume"),
    ):
        np.testing.assert_array_equal(found[ours].astype(float), expected[theirs].astype(float), err_msg=ours)
    for name in ("ma_7d", "ma_30d", "ema_12", "ema_26", "macd", "macd_signal", "rsi_14", "atr_14", "bollinger_upper", "bollinger_lower",
                 "price_change_pct"):  # fmt: skip
        np.testing.assert_allclose(found[name].astype(float), expected[name], rtol=0, atol=DECIMALS, err_msg=name)

    vwap = warehouse.context.engine_adapter.fetchdf(
        "SELECT symbol, bar_time, session_vwap FROM gold.fct_stock_intraday_prices ORDER BY symbol, bar_time"
    )
    vwap.columns = [column.lower() for column in vwap.columns]
    ordered = minutes.sort_values(["symbol", "ts_utc"])
    value = (ordered["high"] + ordered["low"] + ordered["close"]) / 3 * ordered["volume"]
    session = [ordered["symbol"], ordered["trade_date"]]
    expected_vwap = value.groupby(session).cumsum() / ordered["volume"].groupby(session).cumsum()
    np.testing.assert_allclose(vwap["session_vwap"].astype(float), expected_vwap, rtol=0, atol=DECIMALS)

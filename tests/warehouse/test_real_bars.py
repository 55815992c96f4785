"""Real bars through bronze, silver and gold equal an independent computation with pandas and TA-Lib."""

import os
import typing as t
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from archives import deliver, real_minutes
from reference import DECIMALS, compare, daily_columns

DATA = os.environ.get("EGX_DATA_DIR", "")
pytestmark = pytest.mark.skipif(not DATA, reason="EGX_DATA_DIR does not name the folder of real bars")

SYMBOLS = ("ABUK", "COMI", "ETEL", "FWRY", "HRHO", "SWDY")


@pytest.fixture
def minutes() -> pd.DataFrame:
    frames = [pd.read_csv(Path(DATA) / "intraday_1m" / f"{symbol}.csv.gz") for symbol in SYMBOLS]
    bars = pd.concat(frames, ignore_index=True)
    bars["trade_date"] = bars["ts_cairo"].str[:10]
    return bars


def expected_daily(minutes: pd.DataFrame) -> pd.DataFrame:
    """Daily bars of each company, from its minutes."""
    return minutes.sort_values(["symbol", "ts_utc"]).groupby(["symbol", "trade_date"], as_index=False).agg(
        open=("open", "first"), high=("high", "max"), low=("low", "min"), close=("close", "last"), volume=("volume", "sum")
    )  # fmt: skip


def test_real_minutes_become_the_days_that_pandas_computes(make_warehouse: t.Any, minutes: pd.DataFrame) -> None:
    warehouse = make_warehouse()
    deliver(warehouse.archive, real_minutes(Path(DATA), SYMBOLS))
    warehouse.plan()
    found = warehouse.context.engine_adapter.fetchdf("SELECT * FROM gold.fct_stock_daily_prices ORDER BY symbol, trade_date")
    found.columns = [column.lower() for column in found.columns]
    assert found["is_rolled_up"].all()
    expected = expected_daily(minutes)
    assert found["symbol"].unique().tolist() == expected["symbol"].unique().tolist()
    for symbol, bars in expected.groupby("symbol"):
        ours = found[found["symbol"] == symbol].reset_index(drop=True)
        assert ours["trade_date"].astype(str).str[:10].tolist() == bars["trade_date"].tolist()
        # 11 shares for 10 after the last of these bars. This source has COMI on the basis of after it already, which the
        # warehouse cannot know: it adjusts once more, and here only its arithmetic is compared.
        factor = np.full(len(bars), round(1 / 1.1, 12) if symbol == "COMI" else 1.0)
        compare(ours, daily_columns(bars.reset_index(drop=True), factor))

    vwap = warehouse.context.engine_adapter.fetchdf(
        "SELECT symbol, bar_time, session_vwap FROM gold.fct_stock_intraday_prices ORDER BY symbol, bar_time"
    )
    vwap.columns = [column.lower() for column in vwap.columns]
    ordered = minutes.sort_values(["symbol", "ts_utc"])
    value = (ordered["high"] + ordered["low"] + ordered["close"]) / 3 * ordered["volume"]
    session = [ordered["symbol"], ordered["trade_date"]]
    expected_vwap = value.groupby(session).cumsum() / ordered["volume"].groupby(session).cumsum()
    np.testing.assert_allclose(vwap["session_vwap"].astype(float), expected_vwap, rtol=0, atol=DECIMALS)

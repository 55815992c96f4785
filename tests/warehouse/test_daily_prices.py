"""From cleaned bars to gold's daily columns, on DuckDB in memory: any stretch of days, with any split, equals pandas and TA-Lib."""

# ruff: noqa: E501 -- SQL stays on one line

import datetime as dt
import os
import typing as t
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from archives import trading_days
from conftest import Warehouse
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import compare, daily_columns, random_walk

from warehouse.indicators import momentum

DATA = os.environ.get("EGX_DATA_DIR", "")
DAYS = trading_days(dt.date(2022, 1, 2), 900)


class Gold:
    """The models of daily prices as SQLMesh renders them, over tables in memory."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.daily, self.prices = (
            warehouse.context.get_model(name).render_query().sql("duckdb")
            for name in ("silver.stock_prices_daily", "gold.fct_stock_daily_prices")
        )
        self.engine = duckdb.connect()
        self.engine.execute(
            "ATTACH ':memory:' AS EGX_DW; CREATE SCHEMA EGX_DW.bronze; CREATE SCHEMA EGX_DW.silver; CREATE SCHEMA EGX_DW.gold"
        )
        self.table("bronze.symbol_history", "SELECT NULL::TEXT AS old_symbol, NULL::TEXT AS new_symbol WHERE FALSE")

    def table(self, name: str, query: str, given: pd.DataFrame | None = None) -> None:
        """A table of a query, which may ask a frame as `given`."""
        if given is not None:
            self.engine.register("given", given)
        self.engine.execute(f"CREATE OR REPLACE TABLE EGX_DW.{name} AS {query}")

    def check(self, bars: pd.DataFrame, ratios: dict[int, float]) -> None:
        """Daily bars of one company, with a split of so many new shares for one old at each position."""
        bars = bars.reset_index(drop=True)
        actions = pd.DataFrame({"ex_date": bars["trade_date"][list(ratios)].dt.date, "ratio": list(ratios.values())})
        self.table(
            "bronze.corporate_actions",
            "SELECT 'S' AS symbol, ex_date::DATE AS ex_date, ratio::DOUBLE AS ratio FROM given",
            actions,
        )
        self.table("silver.stock_prices_cleaned", """
            SELECT 'S' AS symbol, 'EGX' AS exchange, 'Daily' AS bar_interval, trade_date::TIMESTAMP AS bar_time, trade_date::DATE AS trade_date,
              open::DECIMAL(18, 4) AS open_price, high::DECIMAL(18, 4) AS high_price, low::DECIMAL(18, 4) AS low_price,
              close::DECIMAL(18, 4) AS close_price, IF(ISNAN(volume), NULL, volume)::BIGINT AS volume, TRUE AS is_final, FALSE AS has_anomaly,
              'STREAMING' AS data_source, trade_date::TIMESTAMP AS ingested_at
            FROM given""", bars)  # fmt: skip
        self.table("silver.stock_prices_daily", self.daily)
        adjusted = self.engine.execute(
            "SELECT symbol AS symbol, trade_date AS trade_date, adj_high::DOUBLE AS high, adj_low::DOUBLE AS low, adj_close::DOUBLE AS close "
            "FROM EGX_DW.silver.stock_prices_daily ORDER BY trade_date"
        ).df()
        self.table("gold.fct_stock_momentum", "SELECT * REPLACE (trade_date::DATE AS trade_date) FROM given", momentum(adjusted))
        found = self.engine.execute(f"SELECT * FROM ({self.prices}) ORDER BY 2").df()
        found.columns = [column.lower() for column in found.columns]
        factor = np.ones(len(bars))
        for position, ratio in ratios.items():
            factor[:position] /= ratio
        compare(found, daily_columns(bars, factor.round(12)))


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Gold]:
    warehouse = Warehouse(Path("nowhere"), tmp_path_factory.mktemp("warehouse")).open()
    yield Gold(warehouse)
    warehouse.close()


@st.composite
def stretches(draw: st.DrawFn, days: int) -> tuple[slice, dict[int, float]]:
    """Some days in a row, and up to two splits among them."""
    first = draw(st.integers(0, days - 2))
    length = draw(st.integers(1, min(days - first, 420)))
    splits = st.dictionaries(st.integers(0, length - 1), st.sampled_from([1.1, 2.0, 3.619608, 10.0]), max_size=2)
    return slice(first, first + length), draw(splits)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), stretch=stretches(len(DAYS)))
def test_any_days_equal_pandas_and_ta_lib(gold: Gold, seed: int, stretch: tuple[slice, dict[int, float]]) -> None:
    days, ratios = stretch
    gold.check(random_walk(DAYS[days], seed), ratios)


@pytest.mark.skipif(not DATA, reason="EGX_DATA_DIR does not name the folder of real bars")
@settings(max_examples=40, deadline=None)
@given(symbol=st.sampled_from(["ABUK", "COMI", "ETEL", "FWRY", "HRHO", "SWDY"]), stretch=stretches(85))
def test_any_days_of_real_bars_equal_pandas_and_ta_lib(gold: Gold, symbol: str, stretch: tuple[slice, dict[int, float]]) -> None:
    days, ratios = stretch
    gold.check(real_days(symbol)[days], ratios)


def real_days(symbol: str) -> pd.DataFrame:
    minutes = pd.read_csv(Path(DATA) / "intraday_1m" / f"{symbol}.csv.gz")
    minutes["trade_date"] = pd.to_datetime(minutes["ts_cairo"].str[:10])
    return minutes.groupby("trade_date", as_index=False).agg(
        open=("open", "first"), high=("high", "max"), low=("low", "min"), close=("close", "last"), volume=("volume", "sum")
    )  # fmt: skip

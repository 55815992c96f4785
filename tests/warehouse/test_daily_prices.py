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
from sqlmesh.core.macros import RuntimeStage

DATA = os.environ.get("EGX_DATA_DIR", "")
DAYS = trading_days(dt.date(2022, 1, 2), 900)


class Gold:
    """The models of daily prices as SQLMesh renders them, over tables in memory that are kept from one run to the next."""

    MODELS = ("silver.stock_prices_daily", "silver.stock_prices_momentum", "gold.fct_stock_daily_prices")

    def __init__(self, warehouse: Warehouse) -> None:
        self.models = {name: warehouse.context.get_model(name) for name in self.MODELS}
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

    # What a Python model asks of its context.
    def with_variables(self, *_: t.Any, **__: t.Any) -> "Gold":
        return self

    def resolve_table(self, name: str) -> str:
        return f"EGX_DW.{name}"

    def fetchdf(self, query: str) -> pd.DataFrame:
        return self.engine.execute(query).df()

    def begin(self, bars: pd.DataFrame, ratios: dict[int, float]) -> None:
        """Empty tables, and splits of so many new shares for one old on the days at some positions."""
        actions = pd.DataFrame({"ex_date": bars["trade_date"][list(ratios)].dt.date, "ratio": list(ratios.values())})
        self.table(
            "bronze.corporate_actions",
            "SELECT 'S' AS symbol, ex_date::DATE AS ex_date, ratio::DOUBLE AS ratio FROM given",
            actions,
        )
        for name, model in self.models.items():
            columns = ", ".join(f'NULL::{kind.sql("duckdb")} AS "{column}"' for column, kind in model.columns_to_types.items())
            self.table(name, f"SELECT {columns} WHERE FALSE")

    def run(self, bars: pd.DataFrame, day: dt.date) -> None:
        """A run of one delivery date over daily bars with delivered_on and has_anomaly: what SQLMesh does with a unique key."""
        self.table("silver.stock_prices_cleaned", """
            SELECT 'S' AS symbol, 'S' AS current_symbol, 'EGX' AS exchange, 'Daily' AS bar_interval,
              trade_date::TIMESTAMP AS bar_time, trade_date::DATE AS trade_date,
              open::DECIMAL(18, 4) AS open_price, high::DECIMAL(18, 4) AS high_price, low::DECIMAL(18, 4) AS low_price,
              close::DECIMAL(18, 4) AS close_price, IF(ISNAN(volume), NULL, volume)::BIGINT AS volume, TRUE AS is_final, has_anomaly,
              'STREAMING' AS data_source, trade_date::TIMESTAMP AS ingested_at, delivered_on::DATE AS delivered_on
            FROM given""", bars)  # fmt: skip
        for name, model in self.models.items():
            times = {"start": day, "end": day, "execution_time": day}
            if model.is_sql:
                self.merge(name, model.render_query(**times).sql("duckdb"))
            for frame in () if model.is_sql else model.render(context=self, **times):
                self.engine.register("given", frame)
                self.merge(name, "FROM given")
            for statement in model.render_post_statements(runtime_stage=RuntimeStage.EVALUATING, **times):
                self.engine.execute(statement.sql("duckdb"))

    def merge(self, name: str, query: str) -> None:
        self.engine.execute(f"""
            CREATE OR REPLACE TEMP TABLE found AS {query};
            DELETE FROM EGX_DW.{name} WHERE (symbol, trade_date) IN (SELECT symbol, trade_date FROM found);
            INSERT INTO EGX_DW.{name} BY NAME FROM found
        """)

    def check(self, bars: pd.DataFrame, ratios: dict[int, float], known: int, corrected: int, spoiled: int | None) -> None:
        """Daily bars of one company in two runs. The first has `known` days, the second all of them; and at one position the
        first had another bar, at another the second has one that contradicts itself."""
        bars = bars.reset_index(drop=True).assign(has_anomaly=False, delivered_on=dt.date(2030, 1, 1))
        self.begin(bars, ratios)
        before = bars.copy()
        before.loc[corrected, ["high", "low", "close", "volume"]] = [70, 50, 65, 12]
        self.run(before[:known], dt.date(2030, 1, 1))
        news = (bars.index >= known) | (bars.index == corrected) | (bars.index == spoiled)
        bars.loc[news, "delivered_on"] = dt.date(2030, 1, 2)
        bars["has_anomaly"] = bars.index == spoiled
        self.run(bars, dt.date(2030, 1, 2))
        found = self.engine.execute("SELECT * FROM EGX_DW.gold.fct_stock_daily_prices ORDER BY 2").df()
        found.columns = [column.lower() for column in found.columns]
        factor = np.ones(len(bars))
        for position, ratio in ratios.items():
            factor[:position] /= ratio
        there = ~bars["has_anomaly"].to_numpy()
        if there.any():
            compare(found, daily_columns(bars[there].reset_index(drop=True), factor.round(12)[there]))
        else:
            assert found.empty


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Gold]:
    warehouse = Warehouse(Path("nowhere"), tmp_path_factory.mktemp("warehouse")).open()
    yield Gold(warehouse)
    warehouse.close()


@st.composite
def stretches(draw: st.DrawFn, days: int) -> tuple[slice, tuple[dict[int, float], int, int, int | None]]:
    """Some days in a row, up to two splits among them, how many of them a first run knows, which it knows otherwise, and which
    turns out to be none."""
    first = draw(st.integers(0, days - 2))
    length = draw(st.integers(1, min(days - first, 420)))
    splits = st.dictionaries(st.integers(0, length - 1), st.sampled_from([1.1, 2.0, 3.619608, 10.0]), max_size=2)
    position = st.integers(0, length - 1)
    changes = draw(splits), draw(st.integers(0, length)), draw(position), draw(st.none() | position)
    return slice(first, first + length), changes


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), stretch=stretches(len(DAYS)))
def test_any_days_in_two_runs_equal_pandas_and_ta_lib(gold: Gold, seed: int, stretch: tuple[slice, t.Any]) -> None:
    days, changes = stretch
    gold.check(random_walk(DAYS[days], seed), *changes)


@pytest.mark.skipif(not DATA, reason="EGX_DATA_DIR does not name the folder of real bars")
@settings(max_examples=40, deadline=None)
@given(symbol=st.sampled_from(["ABUK", "COMI", "ETEL", "FWRY", "HRHO", "SWDY"]), stretch=stretches(85))
def test_any_days_of_real_bars_in_two_runs_equal_pandas_and_ta_lib(gold: Gold, symbol: str, stretch: tuple[slice, t.Any]) -> None:
    days, changes = stretch
    gold.check(real_days(symbol)[days], *changes)


def real_days(symbol: str) -> pd.DataFrame:
    minutes = pd.read_csv(Path(DATA) / "intraday_1m" / f"{symbol}.csv.gz")
    minutes["trade_date"] = pd.to_datetime(minutes["ts_cairo"].str[:10])
    return minutes.groupby("trade_date", as_index=False).agg(
        open=("open", "first"), high=("high", "max"), low=("low", "min"), close=("close", "last"), volume=("volume", "sum")
    )  # fmt: skip

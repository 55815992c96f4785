"""Indicators that remember a company's whole past, which no window of bounded length can give exactly."""

import typing as t
from datetime import datetime

import pandas as pd
from frames import stored
from momentum import changed_bars, computed_rows
from rebuilding import replaces_all
from sqlglot import exp
from sqlmesh import ExecutionContext, model
from sqlmesh.core.model.kind import ModelKindName

NAME = "silver.stock_prices_momentum"
INDICATORS = ("ema_12", "ema_26", "macd", "macd_signal", "average_gain", "average_loss", "rsi_14", "atr_14")
COLUMNS = (
    {"symbol": "varchar", "trade_date": "date"}
    | dict.fromkeys(INDICATORS, "double")
    | {"obv": "bigint"}
    | dict.fromkeys(("adj_high", "adj_low", "adj_close"), "double")
    | {"adj_volume": "bigint"}
)


@model(
    NAME,
    kind={"name": ModelKindName.INCREMENTAL_BY_UNIQUE_KEY, "unique_key": ["symbol", "trade_date"], "lookback": 1},
    description="EMA, MACD, RSI, ATR and OBV of each company and trading day, in prices adjusted to today, unrounded, with the "
    "bar that they were computed from. Rows before the first day on which silver.stock_prices_daily has another bar stay.",
    columns=COLUMNS,
    grain=["symbol", "trade_date"],
    depends_on=["silver.stock_prices_daily", NAME],
    post_statements=["@KEEP_DAYS_OF(silver.stock_prices_daily)"],
    audits=[
        ("rows_are_told_apart", {"key": exp.tuple_("symbol", "trade_date"), "given": exp.tuple_("symbol", "trade_date", "obv")}),
        ("accepted_range", {"column": exp.column("rsi_14"), "min_v": exp.Literal.number(0), "max_v": exp.Literal.number(100)}),
    ],
)
def execute(
    context: ExecutionContext, start: datetime, end: datetime, execution_time: datetime, **kwargs: t.Any
) -> t.Iterator[pd.DataFrame | exp.Query]:
    snapshot = kwargs.get("snapshot")
    daily, own = context.resolve_table("silver.stock_prices_daily"), context.resolve_table(NAME)
    rows = computed_rows(context.fetchdf(changed_bars(daily, own, replaces_all(snapshot, own))))
    if len(rows):
        yield from stored(context, snapshot, rows, COLUMNS)

"""Indicators that remember a company's whole past, which no window of bounded length can give exactly."""

# ruff: noqa: S608 -- SQL of the project's own names and paths; no outsider's text is in it

import typing as t
from datetime import datetime

import pandas as pd
from indicators import momentum
from sqlglot import exp
from sqlmesh import ExecutionContext, model

INDICATORS = ("ema_12", "ema_26", "macd", "macd_signal", "rsi_14", "atr_14")


@model(
    "gold.fct_stock_momentum",
    kind="FULL",
    description="EMA, MACD, RSI and ATR of each company and trading day, in prices adjusted to today.",
    columns={"symbol": "varchar", "trade_date": "date"} | dict.fromkeys(INDICATORS, "double"),
    grain=["symbol", "trade_date"],
    depends_on=["silver.stock_prices_daily"],
    audits=[
        ("not_null", {"columns": exp.tuple_("symbol", "trade_date")}),
        ("unique_combination_of_columns", {"columns": exp.tuple_("symbol", "trade_date")}),
        ("accepted_range", {"column": exp.column("rsi_14"), "min_v": exp.Literal.number(0), "max_v": exp.Literal.number(100)}),
    ],
)
def execute(
    context: ExecutionContext, start: datetime, end: datetime, execution_time: datetime, **kwargs: t.Any
) -> t.Iterator[pd.DataFrame]:
    daily = context.resolve_table("silver.stock_prices_daily")
    bars = context.fetchdf(
        "SELECT symbol, trade_date, adj_high::DOUBLE AS high, adj_low::DOUBLE AS low, adj_close::DOUBLE AS close "
        f"FROM {daily} ORDER BY symbol, trade_date"
    )
    bars.columns = [column.lower() for column in bars.columns]
    if len(bars):
        yield momentum(bars).rename(columns=str.upper)

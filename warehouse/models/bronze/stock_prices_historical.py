"""Price history from files: what investing.com, Yahoo Finance and TradingView export, under batch/ in the archive."""

import typing as t
from datetime import datetime

import pandas as pd
from history import read_folder
from sqlglot import exp
from sqlmesh import ExecutionContext, model

COLUMNS = {
    "symbol": "varchar",
    "exchange": "varchar",
    "bar_interval": "varchar",
    "bar_time": "timestamp",
    "open": "varchar",
    "high": "varchar",
    "low": "varchar",
    "close": "varchar",
    "volume": "varchar",
    "ingested_at": "timestamp",
    "source": "varchar",
    "reject_reason": "varchar",
    "record": "varchar",
    "archive_object": "varchar",
    "source_line": "bigint",
}


@model(
    "bronze.stock_prices_historical",
    kind="FULL",
    description="Every line of the CSV files under batch/: typed as far as it goes, or with the reason why it is no bar.",
    columns=COLUMNS,
    grain=["archive_object", "source_line"],
    audits=[
        (
            "rows_are_told_apart",
            {"key": exp.tuple_("archive_object", "source_line"), "given": exp.tuple_("archive_object", "source_line", "record")},
        ),
        ("accepted_bars_have_keys", {}),
    ],
)
def execute(
    context: ExecutionContext, start: datetime, end: datetime, execution_time: datetime, **kwargs: t.Any
) -> t.Iterator[pd.DataFrame | exp.Expression]:
    import locations  # here, because SQLMesh stores a model's imports, and the paths must not be stored

    rows = read_folder(locations.archive(), locations.investing_dates())
    if rows:
        yield pd.DataFrame(rows, columns=list(COLUMNS)).rename(columns=str.upper)
    else:  # SQLMesh would leave the table as it is if nothing came, and takes no frame without rows
        columns = (exp.cast(exp.null(), kind).as_(name.upper(), quoted=True) for name, kind in COLUMNS.items())
        yield exp.select(*columns).where(exp.false())

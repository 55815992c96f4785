"""Price history from files: what investing.com, Yahoo Finance and TradingView export, under batch/ in the archive."""

# ruff: noqa: S608 -- SQL of the project's own names; no outsider's text is in it

import typing as t
from datetime import datetime

import pandas as pd
from frames import stored
from history import changed_files
from rebuilding import replaces_all
from sqlglot import exp
from sqlmesh import ExecutionContext, model
from sqlmesh.core.model.kind import ModelKindName

NAME = "bronze.stock_prices_historical"

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
    "file_version": "varchar",
}


@model(
    NAME,
    kind={
        "name": ModelKindName.INCREMENTAL_BY_UNIQUE_KEY,
        "unique_key": ["archive_object", "source_line"],
        "lookback": 1,
    },
    description="Every line of the CSV files under batch/: typed as far as it goes, or with the reason why it is no bar. Only "
    "files that are new or changed are read.",
    columns=COLUMNS,
    column_descriptions={"file_version": "What was read: the order of dates, and what of the file differs once it is changed"},
    grain=["archive_object", "source_line"],
    depends_on=[NAME],
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
) -> t.Iterator[pd.DataFrame | exp.Query]:
    import locations  # here, because SQLMesh stores a model's imports, and the paths must not be stored

    snapshot = kwargs.get("snapshot")
    own, adapter = context.resolve_table(NAME), context.engine_adapter
    # Files with a bar that was still to come are read again, and all files where all rows are to be replaced.
    again = replaces_all(snapshot, own)
    asked = "OR MAX(CASE WHEN reject_reason LIKE '% is still to come' THEN 1 END) = 1 THEN '' ELSE MAX(file_version) END"
    known = dict(adapter.fetchall(f"SELECT archive_object, CASE WHEN {again} {asked} FROM {own} GROUP BY archive_object"))
    gone, batches = changed_files(locations.archive(), locations.investing_dates(), known)
    # Only once the files of a turn are read, for DuckDB has no transaction here: what cannot be read keeps the rows that it had.
    for names, rows in batches:
        delete(adapter, own, names & known.keys())
        if rows:
            frame = pd.DataFrame(rows, columns=list(COLUMNS)).rename(columns=str.upper)
            yield from stored(context, snapshot, frame, COLUMNS)
    delete(adapter, own, gone)


def delete(adapter: t.Any, table: str, files: set[str]) -> None:
    if files:
        adapter.delete_from(table, exp.column("ARCHIVE_OBJECT").isin(*sorted(files)))

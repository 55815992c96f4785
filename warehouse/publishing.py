"""Gold as Parquet files for readers, who cannot open the DuckDB file beside SQLMesh: exchanged only after success.

SQLMesh's after_all runs after a failed run too, and cannot tell. So @PUBLISH (macros/publish.py) writes to a staging folder,
and a notification target, which SQLMesh tells of every success, moves the files from there to where readers look.
"""

import shutil
import typing as t
from pathlib import Path

import duckdb
import locations
import pyarrow as pa
from sqlglot import exp
from sqlmesh.core.constants import PROD
from sqlmesh.core.model import Model
from sqlmesh.core.notification_target import GenericNotificationTarget, NotificationEvent

# Parquet's second version writes prices as differences, which takes 0.6 of the time and of the space of the first; a dictionary
# is for names and signals, which are few.
FORMAT = "FORMAT parquet, PARQUET_VERSION V2, DICTIONARY_SIZE_LIMIT 1000"


def folder() -> Path:
    """Where readers find gold, a file each table and view."""
    return Path(locations.warehouse(), "gold")


def staging() -> Path:
    """Where a plan or run under way writes them."""
    return Path(locations.warehouse(), "gold.staging")


def write(batches: t.Iterable[pa.Table], types: dict[str, exp.DataType], file: Path) -> None:
    """Writes fetched rows as DuckDB would: columns in lower case, with the types that their model gives them.

    Args:
        batches: the rows, in columns of the same order as `types`; Snowflake's are as narrow as their own values allow.
        types: column -> type.
        file: the Parquet file to make.
    """
    columns = ", ".join(f'"{column.lower()}" {kind.sql("duckdb")}' for column, kind in types.items())
    with duckdb.connect() as memory:
        memory.execute(f"CREATE TABLE fetched ({columns})")
        for batch in batches:
            memory.register("batch", batch)
            memory.execute("INSERT INTO fetched FROM batch")
        memory.execute(f"COPY fetched TO '{file}' ({FORMAT})")


def write_missing(models: t.Iterable[Model]) -> None:
    """A file without rows for each of these models that has none: before the first run readers find columns and no data."""
    for model in models:
        file = folder() / f"{model.view_name.lower()}.parquet"
        if not file.exists():
            written = file.with_suffix(".tmp")
            write([], model.columns_to_types_or_raise, written)
            written.replace(file)


class Publication(GenericNotificationTarget, frozen=True):
    """Publishes what a plan or run of prod has staged, once that has succeeded."""

    notify_on: frozenset[NotificationEvent] = frozenset(
        {NotificationEvent.APPLY_START, NotificationEvent.RUN_START, NotificationEvent.APPLY_END, NotificationEvent.RUN_END}
    )

    def notify_apply_start(self, environment: str, plan_id: str, *args: t.Any, **kwargs: t.Any) -> None:
        self.begin(environment)

    def notify_run_start(self, environment: str, *args: t.Any, **kwargs: t.Any) -> None:
        self.begin(environment)

    def notify_apply_end(self, environment: str, plan_id: str, *args: t.Any, **kwargs: t.Any) -> None:
        self.publish(environment)

    def notify_run_end(self, environment: str, *args: t.Any, **kwargs: t.Any) -> None:
        self.publish(environment)

    def begin(self, environment: str) -> None:
        """What a failed run left there is no part of this one. Beside another environment's, a run of prod may be under way."""
        if environment == PROD:
            shutil.rmtree(staging(), ignore_errors=True)
            staging().mkdir(parents=True)

    def publish(self, environment: str) -> None:
        """File by file, by renaming: a reader sees the old or the new."""
        if environment == PROD:
            folder().mkdir(parents=True, exist_ok=True)
            for file in staging().glob("*.parquet"):
                file.replace(folder() / file.name)

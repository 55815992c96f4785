"""Output into a table of a local SQLite file, by natural key."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from typing_extensions import override

from connectors.errors import ConnectorError, PermanentError, TransientError
from connectors.retrying import Retry

Row = Sequence[Any]


class Table(NamedTuple):
    """A table's name, its columns with their types, and how many of the first columns are its key."""

    name: str
    columns: dict[str, str]
    key: int

    def create(self) -> str:
        columns = ", ".join(f'"{name}" {kind}' for name, kind in self.columns.items())
        key = ", ".join(f'"{name}"' for name in list(self.columns)[: self.key])
        return f'CREATE TABLE IF NOT EXISTS "{self.name}" ({columns}, PRIMARY KEY ({key})) WITHOUT ROWID'

    def upsert(self) -> str:
        names = list(self.columns)
        key = ", ".join(f'"{name}"' for name in names[: self.key])
        values = ", ".join(f'"{name}" = excluded."{name}"' for name in names[self.key :])
        marks = ", ".join("?" * len(names))
        return f'INSERT INTO "{self.name}" VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {values}'  # noqa: S608 - names of ours


def connect(path: Path, *, check_same_thread: bool = True, survive_power_cuts: bool = True) -> sqlite3.Connection:
    """A connection that others can read beside (write-ahead log) and whose commits survive the process's end.

    :arg check_same_thread: false where several threads use it, one at a time.
    :arg survive_power_cuts: whether each commit waits for the disk; without, a power cut may take the last ones back.
    :raises PermanentError: the file cannot be made, written or read as a database.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=30, check_same_thread=check_same_thread)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if survive_power_cuts else 'NORMAL'}")
        return connection
    except (OSError, sqlite3.Error) as error:
        raise PermanentError(f"cannot write the SQLite file {path} ({error}): check the path and its permissions") from None


def open_table(path: Path, table: Table) -> sqlite3.Connection:
    """A connection to the file, in which the table is made where it is missing. Raises ConnectorError."""
    connection = connect(path)
    try:
        connection.execute(table.create())
    except sqlite3.Error as error:
        raise cannot_write(path, error) from None
    return connection


def cannot_write(path: Path, error: sqlite3.Error) -> ConnectorError:
    text = f"cannot write {path}: {error}: check disk space, permissions and who locks it"
    passing = getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
    return TransientError(text) if passing else PermanentError(text)


class _TablePartition(StatefulSinkPartition[Sequence[Row], None]):
    def __init__(self, path: Path, table: Table, retry: Retry, on_written: Callable[[int], None]) -> None:
        self._path, self._retry, self._on_written = path, retry, on_written
        self._connection = open_table(path, table)
        self._upsert = table.upsert()

    @override
    def write_batch(self, values: list[Sequence[Row]]) -> None:
        self._retry(lambda: self._write(values))
        self._on_written(sum(map(len, values)))

    def _write(self, values: list[Sequence[Row]]) -> None:
        try:
            with self._connection:
                for rows in values:
                    self._connection.executemany(self._upsert, rows)
        except sqlite3.Error as error:
            raise cannot_write(self._path, error) from None

    @override
    def snapshot(self) -> None:
        return None


class SqliteSink(FixedPartitionedSink[Sequence[Row], None]):
    """Upserts rows; items are (any key, rows).

    Delivery: durable when `write_batch` returns, at least once onto the table's key: the last row of a key wins, a replay
    changes nothing. One partition: SQLite has one writer.
    """

    def __init__(
        self,
        path: Path,
        table: Table,
        *,
        stop: threading.Event,
        retry_seconds: float = 300,
        on_written: Callable[[int], None] = lambda rows: None,
        on_retry: Callable[[], None] = lambda: None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """
        :arg retry_seconds: how long a locked file or a full disk is tried again before the flow fails.
        :arg on_written: called with the number of rows that have become durable.
        :arg on_retry: called before each further attempt.
        :arg extra: see `Retry`.
        """
        self._path, self._table, self._on_written = path, table, on_written
        self._retry = Retry(retry_seconds, stop, on_retry=on_retry, extra=extra)

    @override
    def list_parts(self) -> list[str]:
        return ["0"]

    @override
    def part_fn(self, item_key: str) -> int:
        return 0

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _TablePartition:
        return _TablePartition(self._path, self._table, self._retry, self._on_written)

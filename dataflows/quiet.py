"""The bars that a source was asked for and does not have: nobody traded then, and they are no gaps."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from connectors.sqlite import connect
from dataflows.bar import Interval

_TABLE = """
CREATE TABLE IF NOT EXISTS quiet (source TEXT, exchange TEXT, symbol TEXT, interval TEXT, start TEXT,
  PRIMARY KEY (source, exchange, symbol, interval, start)) WITHOUT ROWID
"""


class Quiet:
    """A memory of them in a SQLite file, for each source; for use by any thread."""

    def __init__(self, path: Path, source: str, exchange: str) -> None:
        self._path, self._source, self._exchange = path, source, exchange

    def note(self, symbol: str, interval: Interval, starts: Iterable[dt.datetime]) -> None:
        """The source has no bars of these starts (UTC)."""
        rows = [(self._source, self._exchange, symbol, interval, start.isoformat()) for start in starts]
        with closing(connect(self._path)) as connection, connection:
            connection.execute(_TABLE)
            connection.executemany("INSERT OR IGNORE INTO quiet VALUES (?, ?, ?, ?, ?)", rows)

    def forget(self, symbol: str, interval: Interval, first: dt.datetime, last: dt.datetime) -> None:
        """Those of a symbol and interval from one start to another (UTC, both included) are unknown again."""
        if self._path.exists():
            with closing(connect(self._path)) as connection, connection:
                connection.execute(_TABLE)
                connection.execute(
                    "DELETE FROM quiet WHERE (source, exchange, symbol, interval) = (?, ?, ?, ?) AND start BETWEEN ? AND ?",
                    (self._source, self._exchange, symbol, interval, first.isoformat(), last.isoformat()),
                )

    def starts(self, symbol: str, interval: Interval) -> set[dt.datetime]:
        """Those of a symbol and interval."""
        if not self._path.exists():
            return set()
        with closing(connect(self._path)) as connection:
            connection.execute(_TABLE)
            rows = connection.execute(
                "SELECT start FROM quiet WHERE source = ? AND exchange = ? AND symbol = ? AND interval = ?",
                (self._source, self._exchange, symbol, interval),
            )
            return {dt.datetime.fromisoformat(start) for (start,) in rows}

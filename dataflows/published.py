"""What was published last of each bar, so that a poll publishes only what is new or has changed."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import msgspec

from connectors.sqlite import cannot_write, connect
from dataflows.bar import Bar

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_ASKED_AT_ONCE = 250  # of two values each: SQLite takes at least 999 values a statement, and 500 terms in VALUES
_NOTED_AT_ONCE = 100  # rows of a statement: 1.2 us a row, where a statement a row takes 2.0
_TABLES = """
CREATE TABLE IF NOT EXISTS series (
    number INTEGER PRIMARY KEY, target TEXT, exchange TEXT, symbol TEXT, interval TEXT, newest INTEGER,
    UNIQUE (target, exchange, symbol, interval)
);
CREATE TABLE IF NOT EXISTS versions (start INTEGER, series INTEGER, version BLOB, PRIMARY KEY (start, series)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stamped (target TEXT PRIMARY KEY, at TEXT) WITHOUT ROWID;
"""
_encoder = msgspec.json.Encoder()

_BEFORE_ALL = -(2**63)

Name = tuple[str, str, str]
"""A series: exchange, symbol, interval."""
Key = tuple[int, int]
"""A bar: its start in microseconds since 1970, and the number of its series."""
Note = tuple[int, int, bytes]
"""A bar, as in `Key`, and its version."""


class Published:
    """The memory of ingest, in a SQLite file.

    A bar is noted there only when it is durable in Kafka: after a crash a bar may be published again (as a newer version
    with the same values), never left out; after a power cut, which may take the last notes back, too. One process has the
    file at a time (another's notes would not be seen); its callers may be different threads.
    """

    def __init__(self, path: Path, target: str, durable: Callable[[Mapping[int, int]], bool]) -> None:
        """
        :arg target: what is published to; each has a memory of its own.
        :arg durable: whether what was written up to partition -> offset survives this process.
        """
        self._target, self._durable = target, durable
        self._lock = threading.RLock()
        self._path = path
        self._connection = connect(path, check_same_thread=False, survive_power_cuts=False)
        with self._locked():
            self._open()

    def _open(self) -> None:
        self._connection.executescript(_TABLES)
        row = self._connection.execute("SELECT at FROM stamped WHERE target = ?", (self._target,)).fetchone()
        self._stamp = dt.datetime.fromisoformat(row[0]) if row else dt.datetime.min.replace(tzinfo=dt.UTC)
        self._series: dict[Name, int] = {}
        self._newest: dict[int, int] = {}
        """Series -> the start of its newest bar that is noted; what is newer need not be looked up."""
        self._load_series()
        self._pending: dict[Key, bytes] = {}
        """Bars that are noted nowhere but here yet."""
        self._writing: list[Note] = []
        self._written: deque[tuple[dict[int, int], list[Note]]] = deque()

    def _load_series(self) -> None:
        rows = self._connection.execute(
            "SELECT exchange, symbol, interval, number, newest FROM series WHERE target = ?", (self._target,)
        )
        for exchange, symbol, interval, number, newest in rows:
            self._series[exchange, symbol, interval] = number
            self._newest.setdefault(number, newest)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One caller at a time; what SQLite has against it is an error of ours."""
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise cannot_write(self._path, error) from None

    def forget(self) -> None:
        """Starts over: every bar is new."""
        with self._locked(), self._connection:
            of_target = "(SELECT number FROM series WHERE target = ?)"
            self._connection.execute(f"DELETE FROM versions WHERE series IN {of_target}", (self._target,))  # noqa: S608 - ours
            self._connection.execute("UPDATE series SET newest = ? WHERE target = ?", (_BEFORE_ALL, self._target))
            self._newest = dict.fromkeys(self._newest, _BEFORE_ALL)

    def changed(self, bars: Sequence[Bar], *, again: bool = False) -> list[Bar]:
        """The bars that were never published, or with other values, in order.

        Not those that a source gives as unfinished after it gave them as final: it has gone back, as a replay does.

        :arg again: those that were published with the same values, too: they are known to be lost.
        """
        new = []
        versions = _versions(bars)
        with self._locked():
            keys = self._keys(bars)
            noted = self._noted([key for key in keys if key[0] <= self._newest[key[1]]])
            for bar, key, version in zip(bars, keys, versions, strict=True):
                known = self._pending.get(key) or noted.get(key)
                if known is None or ((again or known != version) and not (_final(known) and not _final(version))):
                    self._pending[key] = version
                    self._writing.append((*key, version))
                    new.append(bar)
        return new

    def _keys(self, bars: Sequence[Bar]) -> list[Key]:
        names = [(bar.exchange, bar.symbol, bar.interval) for bar in bars]
        if unknown := set(names) - self._series.keys():
            with self._connection:
                self._connection.executemany(
                    "INSERT OR IGNORE INTO series (target, exchange, symbol, interval, newest) VALUES (?, ?, ?, ?, ?)",
                    [(self._target, *name, _BEFORE_ALL) for name in sorted(unknown)],
                )
            self._load_series()
        return [((bar.datetime - _EPOCH) // _MICROSECOND, self._series[name]) for bar, name in zip(bars, names, strict=True)]

    def _noted(self, keys: Sequence[Key]) -> dict[Key, bytes]:
        """Those of the bars that are noted: key -> version."""
        found: dict[Key, bytes] = {}
        for first in range(0, len(keys), _ASKED_AT_ONCE):
            some = keys[first : first + _ASKED_AT_ONCE]
            asked = ",".join(["(?,?)"] * len(some))
            # CROSS JOIN keeps the order: each bar that is asked about is looked up by the key.
            query = f"""
                WITH asked (start, series) AS (VALUES {asked})
                SELECT start, series, version FROM asked CROSS JOIN versions USING (start, series)
            """  # noqa: S608 - marks only
            rows = self._connection.execute(query, [value for key in some for value in key])
            found.update(((start, series), version) for start, series, version in rows)
        return found

    def stamp(self, bars: Sequence[Bar], now: dt.datetime) -> list[Bar]:
        """The bars with their ingestion time: `now`, but strictly later than any before."""
        stamped = []
        for bar in bars:
            self._stamp = max(now, self._stamp + _MICROSECOND)
            stamped.append(msgspec.structs.replace(bar, ingestion_timestamp=self._stamp))
        return stamped

    def written(self, count: int, ends: Mapping[int, int]) -> None:
        """The next `count` bars that `changed` gave are in Kafka, up to partition -> offset."""
        with self._locked():
            self._written.append((dict(ends), self._writing[:count]))
            del self._writing[:count]
            self.note()

    def note(self) -> None:
        """Notes what has become durable."""
        with self._locked():
            self._note()

    def _note(self) -> None:
        noted: list[Note] = []
        while self._written and self._durable(self._written[0][0]):
            noted += self._written.popleft()[1]
        if not noted:
            return
        newest: dict[int, int] = {}
        for start, series, _ in noted:
            if start > newest.get(series, self._newest[series]):
                newest[series] = start
        with self._connection:
            for first in range(0, len(noted), _NOTED_AT_ONCE):
                some = noted[first : first + _NOTED_AT_ONCE]
                rows = ",".join(["(?,?,?)"] * len(some))
                self._connection.execute(
                    f"INSERT OR REPLACE INTO versions VALUES {rows}",  # noqa: S608 - marks only
                    [value for note in some for value in note],
                )
            self._connection.executemany(
                "UPDATE series SET newest = MAX(newest, ?) WHERE number = ?",
                [(start, series) for series, start in newest.items()],
            )
            self._connection.execute("INSERT OR REPLACE INTO stamped VALUES (?, ?)", (self._target, self._stamp.isoformat()))
        self._newest |= newest
        for start, series, version in noted:
            if self._pending.get((start, series)) == version:
                del self._pending[start, series]


def _versions(bars: Sequence[Bar]) -> list[bytes]:
    """Of each bar a hash of its values, and whether it is final."""
    values = [(bar.open, bar.high, bar.low, bar.close, bar.volume, bar.source, bar.is_final) for bar in bars]
    lines = _encoder.encode_lines(values).split(b"\n")
    return [
        blake2b(line, digest_size=8).digest() + (b"F" if bar.is_final else b"-") for bar, line in zip(bars, lines, strict=False)
    ]


def _final(version: bytes) -> bool:
    return version.endswith(b"F")

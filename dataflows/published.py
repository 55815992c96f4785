"""What was published last of each bar, so that a poll publishes only what is new or has changed."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import msgspec

from connectors.sqlite import cannot_write, connect
from dataflows.bar import Bar

_MICROSECOND = dt.timedelta(microseconds=1)
_ASKED_AT_ONCE = 500  # SQLite takes at least 999 values a statement
_encoder = msgspec.json.Encoder()
_FORGET = "DELETE FROM published WHERE target = ?"


class Published:
    """The memory of ingest, in a SQLite file.

    A bar is noted there only when it is durable in Kafka: after a crash a bar may be published again (as a newer version
    with the same values), never left out. Its callers may be different threads.
    """

    def __init__(self, path: Path, target: str, durable: Callable[[Mapping[int, int]], bool]) -> None:
        """
        :arg target: what is published to; each has a memory of its own.
        :arg durable: whether what was written up to partition -> offset survives this process.
        """
        self._target, self._durable = target, durable
        self._lock = threading.RLock()
        self._path = path
        self._connection = connect(path, check_same_thread=False)
        with self._locked():
            self._open()

    def _open(self) -> None:
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS published (target TEXT, bar BLOB, version BLOB, PRIMARY KEY (target, bar)) WITHOUT ROWID"
        )
        self._connection.execute("CREATE TABLE IF NOT EXISTS stamped (target TEXT PRIMARY KEY, at TEXT) WITHOUT ROWID")
        row = self._connection.execute("SELECT at FROM stamped WHERE target = ?", (self._target,)).fetchone()
        self._stamp = dt.datetime.fromisoformat(row[0]) if row else dt.datetime.min.replace(tzinfo=dt.UTC)
        self._pending: dict[bytes, bytes] = {}
        """Bars that are noted nowhere but here yet."""
        self._writing: deque[tuple[bytes, bytes]] = deque()
        self._written: deque[tuple[dict[int, int], list[tuple[bytes, bytes]]]] = deque()

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
            self._connection.execute(_FORGET, (self._target,))

    def changed(self, bars: Iterable[Bar], *, again: bool = False) -> list[Bar]:
        """The bars that were never published, or with other values, in order.

        Not those that a source gives as unfinished after it gave them as final: it has gone back, as a replay does.

        :arg again: those that were published with the same values, too: they are known to be lost.
        """
        new = []
        versions = [(bar, _identity(bar), _version(bar)) for bar in bars]
        with self._locked():
            noted = self._noted([identity for _, identity, _ in versions if identity not in self._pending])
            for bar, identity, version in versions:
                known = self._pending.get(identity) or noted.get(identity)
                if known is None or ((again or known != version) and not (_final(known) and not _final(version))):
                    self._pending[identity] = version
                    self._writing.append((identity, version))
                    new.append(bar)
        return new

    def _noted(self, identities: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those of the bars that are noted: identity -> version."""
        found: dict[bytes, bytes] = {}
        for first in range(0, len(identities), _ASKED_AT_ONCE):
            some = identities[first : first + _ASKED_AT_ONCE]
            marks = ",".join("?" * len(some))
            query = f"SELECT bar, version FROM published WHERE target = ? AND bar IN ({marks})"  # noqa: S608 - marks only
            found.update(self._connection.execute(query, (self._target, *some)))
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
            self._written.append((dict(ends), [self._writing.popleft() for _ in range(count)]))
            self.note()

    def note(self) -> None:
        """Notes what has become durable."""
        with self._locked():
            self._note()

    def _note(self) -> None:
        noted: list[tuple[bytes, bytes]] = []
        while self._written and self._durable(self._written[0][0]):
            noted += self._written.popleft()[1]
        if noted:
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO published VALUES (?, ?, ?)",
                    ((self._target, identity, version) for identity, version in noted),
                )
                self._connection.execute("INSERT OR REPLACE INTO stamped VALUES (?, ?)", (self._target, self._stamp.isoformat()))
            for identity, version in noted:
                if self._pending.get(identity) == version:
                    del self._pending[identity]


def _identity(bar: Bar) -> bytes:
    return f"{bar.exchange}/{bar.symbol}/{bar.interval}/{bar.datetime.timestamp():.6f}".encode()


def _version(bar: Bar) -> bytes:
    values = (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.source, bar.is_final)
    return blake2b(_encoder.encode(values), digest_size=8).digest() + (b"F" if bar.is_final else b"-")


def _final(version: bytes) -> bool:
    return version.endswith(b"F")

"""What the page shows, read from the live store and the published gold layer; neither reader holds up a writer.

The live store is opened read-only for each look (SQLite's write-ahead log lets a reader see a whole state beside the
writer), and gold is read from the Parquet files that the warehouse replaces whole.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import duckdb
import pandas as pd

from dataflows.calendar import MINUTES
from dataflows.live import MEASUREMENT
from dataflows.symbols import Company, company

_NEWEST = f"""
SELECT datetime, close, open, high, low, volume, source, ingestion_timestamp
FROM {MEASUREMENT}
WHERE exchange = ? AND symbol = ? AND interval = ? AND datetime >= ? AND datetime < ? AND close IS NOT NULL
ORDER BY datetime DESC
LIMIT ?
"""  # noqa: S608 - names of ours
_SYMBOLS = f"SELECT DISTINCT symbol FROM {MEASUREMENT} WHERE exchange = ? ORDER BY symbol"  # noqa: S608
_BARS = f"""
SELECT datetime, open, high, low, close, volume
FROM {MEASUREMENT}
WHERE exchange = ? AND symbol = ? AND interval = ? AND open IS NOT NULL AND high IS NOT NULL AND low IS NOT NULL
  AND close IS NOT NULL
ORDER BY datetime DESC
LIMIT ?
"""  # noqa: S608
_PLAY = f"""
SELECT datetime, ingestion_timestamp
FROM {MEASUREMENT}
WHERE exchange = ? AND interval = '1 Minute' AND source = 'simulated' AND ingestion_timestamp IS NOT NULL
ORDER BY ingestion_timestamp DESC
LIMIT 1
"""  # noqa: S608
SPARK_DAYS = 30


class Quote(NamedTuple):
    """A symbol now: its last price, the change since the close of the session before, and its last closes, oldest first."""

    symbol: str
    company: Company
    time: dt.datetime
    price: float
    change: float | None
    """A fraction of the close before."""
    open: float | None
    high: float | None
    low: float | None
    volume: int | None
    closes: tuple[float, ...]
    source: str | None
    ingested_at: dt.datetime | None

    @property
    def value(self) -> float | None:
        """What was traded in the day, in the company's currency; about, for not every share went at the last price."""
        return None if self.volume is None else self.price * self.volume


class Play(NamedTuple):
    """Where a simulated session is: the minute that came last, and when it came."""

    minute: dt.datetime
    ingested_at: dt.datetime


def _read_only(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)
    connection.execute("PRAGMA query_only = ON")
    return connection


class Day(NamedTuple):
    """A symbol's trading day: a Daily bar, or a day's intraday bars rolled up."""

    time: str
    close: float
    open: float | None
    high: float | None
    low: float | None
    volume: int | None
    source: str | None
    ingested: str | None


def _days(connection: sqlite3.Connection, exchange: str, symbol: str) -> list[Day]:
    """The last days of a symbol, newest first: its Daily bars, or, where it has none, those that its shortest bars make."""

    def newest(interval: str, limit: int, since: str = "", before: str = "9") -> list[Day]:
        rows = connection.execute(_NEWEST, (exchange, symbol, interval, since, before, limit))
        return [Day(*row) for row in rows]

    if daily := newest("Daily", SPARK_DAYS):
        return daily
    interval = next((interval for interval in MINUTES if newest(interval, 1)), "")
    days: list[Day] = []
    before = "9"  # times are text, in UTC, as are the dates that they begin with: no session goes beyond midnight there
    while len(days) < SPARK_DAYS and (last := newest(interval, 1, before=before)):
        before = last[0].time[:10]
        days += last if days else [_rolled(newest(interval, -1, since=before))]  # of earlier days only the close is asked
    return days


def _rolled(bars: list[Day]) -> Day:
    """A day of its bars, newest first."""
    newest, first = bars[0], bars[-1]
    return Day(
        first.time,
        newest.close,
        first.open,
        max((bar.high for bar in bars if bar.high is not None), default=None),
        min((bar.low for bar in bars if bar.low is not None), default=None),
        sum(volumes) if (volumes := [bar.volume for bar in bars if bar.volume is not None]) else None,
        newest.source,
        max((bar.ingested for bar in bars if bar.ingested), default=None),
    )


def quotes(path: Path, exchange: str) -> list[Quote]:
    """The last day of each symbol of the live store, by symbol. Raises sqlite3.Error, as while there is no store."""
    found = []
    with closing(_read_only(path)) as connection:
        for (symbol,) in connection.execute(_SYMBOLS, (exchange,)).fetchall():
            days = _days(connection, exchange, symbol)
            if not days:
                continue
            last = days[0]
            found.append(
                Quote(
                    symbol,
                    company(symbol),
                    dt.datetime.fromisoformat(last.time),
                    last.close,
                    last.close / days[1].close - 1 if len(days) > 1 else None,
                    last.open,
                    last.high,
                    last.low,
                    last.volume,
                    tuple(day.close for day in reversed(days)),
                    last.source,
                    dt.datetime.fromisoformat(last.ingested) if last.ingested else None,
                )
            )
    return found


def play(path: Path, exchange: str) -> Play | None:
    """Where the simulated session of the live store is; None where it has none. Raises sqlite3.Error."""
    with closing(_read_only(path)) as connection:
        newest = connection.execute(_PLAY, (exchange,)).fetchone()
    return Play(*map(dt.datetime.fromisoformat, newest)) if newest else None


def bars(path: Path, exchange: str, symbol: str, interval: str, limit: int) -> pd.DataFrame:
    """The newest bars of a symbol, oldest first: time (UTC), open, high, low, close, volume; those without a price left out."""
    with closing(_read_only(path)) as connection:
        rows = connection.execute(_BARS, (exchange, symbol, interval, limit)).fetchall()
    frame = pd.DataFrame(rows[::-1], columns=["time", "open", "high", "low", "close", "volume"])
    return frame.assign(time=pd.to_datetime(frame["time"], utc=True, format="ISO8601"))


def intervals(path: Path, exchange: str, symbol: str) -> list[str]:
    """The intervals that the live store has of a symbol."""
    query = f"SELECT DISTINCT interval FROM {MEASUREMENT} WHERE exchange = ? AND symbol = ? ORDER BY interval DESC"  # noqa: S608
    with closing(_read_only(path)) as connection:
        return [interval for (interval,) in connection.execute(query, (exchange, symbol))]


def gold(folder: Path, view: str, query: str) -> pd.DataFrame | None:
    """The result of a query over a published view, named `view` in it; None where there is no such file yet."""
    file = folder / f"{view}.parquet"
    if not file.exists():
        return None
    with closing(duckdb.connect()) as connection:
        connection.execute(f"CREATE VIEW view AS FROM read_parquet('{str(file).replace(chr(39), chr(39) * 2)}')")
        return connection.execute(query).fetchdf()

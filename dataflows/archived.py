"""What the archive holds: the latest version of each bar, read back, and how new it is."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat, takewhile
from typing import Final

from connectors.objects import ReadableStore
from dataflows.bar import CAIRO, Bar, Interval, decode_all
from dataflows.calendar import LONG

Series = tuple[str, Interval]
"""Symbol and interval."""
Archived = dict[Series, dict[dt.datetime, Bar]]
"""Series -> a bar's start -> its latest version."""

DATES: Final = 10  # of deliveries that `newest_days` looks at
OBJECTS: Final = 8  # of a symbol and date that it reads


def read(
    store: ReadableStore,
    exchange: str,
    symbols: Collection[str],
    first: dt.date,
    last: dt.date,
    now: dt.datetime,
    parallel: int = 8,
) -> Archived:
    """The bars of some symbols whose start is on one of the dates in Cairo, both included.

    Only what was ingested on the first date (UTC) or later is read: earlier it could not have been known.
    """
    since = f"date={first - dt.timedelta(days=1)}"
    wanted = {f"symbol={symbol}" for symbol in symbols}
    keys = [key for key in store.keys(since) if key.split("/")[-2:-1] and key.split("/")[-2] in wanted]
    found: Archived = {}
    with ThreadPoolExecutor(parallel) as threads:
        for body in threads.map(store.get, keys):
            for bar in decode_all(body.splitlines(), now):
                if isinstance(bar, Bar) and bar.exchange == exchange and first <= bar.datetime.astimezone(CAIRO).date() <= last:
                    versions = found.setdefault((bar.symbol, bar.interval), {})
                    known = versions.get(bar.datetime)
                    if known is None or _version(bar) >= _version(known):
                        versions[bar.datetime] = bar
    return found


def newest_days(
    store: ReadableStore, exchange: str, symbols: Collection[str], expected: dt.date, now: dt.datetime, parallel: int = 8
) -> dict[str, dt.date]:
    """Symbol -> the day, in Cairo, of its newest daily or intraday bar, where the last `DATES` deliveries have one.

    Cheap however large the archive is: of a symbol the names of one folder are listed, and its newest object is read. Only where
    that has no bar of the expected day, as after a backfill, are more objects and earlier deliveries looked at.
    """
    found: dict[str, dt.date] = {}

    def newest_day(folder: str, enough: dt.date) -> dt.date | None:
        newest: dt.date | None = None
        keys = list(takewhile(lambda key: key.startswith(folder), store.keys(folder)))
        for key in keys[: -OBJECTS - 1 : -1]:
            for bar in decode_all(store.get(key).splitlines(), now):
                if isinstance(bar, Bar) and bar.exchange == exchange and bar.interval not in LONG:
                    newest = max(bar.datetime.astimezone(CAIRO).date(), newest or dt.date.min)
            if newest is not None and newest >= enough:
                break
        return newest

    deliveries = [name for name in store.folders() if re.fullmatch(r"date=\d{4}-\d\d-\d\d", name)]
    with ThreadPoolExecutor(parallel) as threads:
        for delivery in reversed(deliveries[-DATES:]):
            enough = min(expected, dt.date.fromisoformat(delivery.removeprefix("date=")))  # earlier ones have nothing newer
            there = set(store.folders(delivery))
            late = [symbol for symbol in symbols if f"symbol={symbol}" in there and found.get(symbol, dt.date.min) < enough]
            folders = [f"{delivery}/symbol={symbol}/" for symbol in late]
            for symbol, day in zip(late, threads.map(newest_day, folders, repeat(enough)), strict=False):
                if day is not None:
                    found[symbol] = max(day, found.get(symbol, day))
    return found


def _version(bar: Bar) -> dt.datetime:
    return bar.ingestion_timestamp or bar.datetime

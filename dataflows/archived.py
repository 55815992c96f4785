"""What the archive holds: the latest version of each bar, read back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from connectors.objects import ReadableStore
from dataflows.bar import CAIRO, Bar, Interval, decode_all

Series = tuple[str, Interval]
"""Symbol and interval."""
Archived = dict[Series, dict[dt.datetime, Bar]]
"""Series -> a bar's start -> its latest version."""


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


def _version(bar: Bar) -> dt.datetime:
    return bar.ingestion_timestamp or bar.datetime

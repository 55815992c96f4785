"""Small archives of bars, laid out as the archive leg lays them out."""

import csv
import datetime as dt
import gzip
import json
import typing as t
from collections import defaultdict
from pathlib import Path

Bar = dict[str, t.Any]


def bar(
    symbol: str,
    start: dt.datetime | str,
    close: float | None,
    ingested: dt.datetime | str,
    interval: str = "Daily",
    volume: int | None = 1000,
    **changed: t.Any,
) -> Bar:
    """A message of the platform; open, high and low follow the close unless given."""
    made = {
        "symbol": symbol,
        "exchange": "EGX",
        "interval": interval,
        "datetime": iso(start),
        "open": close,
        "high": close,
        "low": close,
        "close": close,
        "volume": volume,
        "ingestion_timestamp": iso(ingested),
        "source": "test",
        "is_final": False,
    }
    return {**made, **changed}


def iso(time: dt.datetime | str) -> str:
    return time if isinstance(time, str) else time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def daily(
    symbol: str, day: dt.date | str, close: float | None, ingested: dt.datetime | str | None = None, **changed: t.Any
) -> Bar:
    """A Daily bar, ingested at 13:00 UTC of its day unless said otherwise; it starts at 08:00 UTC as in winter."""
    return bar(symbol, f"{day}T08:00:00Z", close, ingested or f"{day}T13:00:00.000000Z", **changed)


def deliver(archive: Path, bars: t.Iterable[Bar | str], offset: int = 0, date: str | None = None) -> list[Path]:
    """One object for each (delivery date, symbol), one record a line; text stands as it is.

    Args:
        archive: root of the archive.
        bars: messages in the order of the topic.
        offset: Kafka offset of the first one.
        date: delivery date for all, where it is not that of the first record's ingestion_timestamp.
    """
    groups: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    stamps: dict[tuple[str, str], str] = {}
    for number, record in enumerate(bars, offset):
        made = record if isinstance(record, dict) else {}
        time = str(made.get("ingestion_timestamp") or f"{date}T12:00:00.000000Z")
        key = (date or time[:10], str(made.get("symbol") or "UNKNOWN"))
        groups[key].append((number, record if isinstance(record, str) else json.dumps(record)))
        stamps.setdefault(key, (time[11:26].replace(":", "").replace(".", "").rstrip("Z") + "0" * 12)[:12])
    written = []
    for (day, symbol), lines in groups.items():
        folder = archive / "streaming" / f"date={day}" / f"symbol={symbol}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stamps[day, symbol]}-0-{lines[0][0]:018d}.json"
        path.write_text("".join(f"{line}\n" for _, line in lines), encoding="utf-8")
        written.append(path)
    return written


def trading_days(first: dt.date, count: int) -> list[dt.date]:
    """Sundays to Thursdays from a day on."""
    days: list[dt.date] = []
    while len(days) < count:
        if first.weekday() not in (4, 5):
            days.append(first)
        first += dt.timedelta(1)
    return days


def real_minutes(folder: Path, symbols: t.Iterable[str]) -> t.Iterator[Bar]:
    """Real 1-minute bars (TradingView exports, one gzipped CSV a symbol) as messages ingested when each minute was over."""
    for symbol in symbols:
        with gzip.open(folder / "intraday_1m" / f"{symbol}.csv.gz", "rt", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                start = dt.datetime.fromisoformat(row["ts_utc"]).replace(tzinfo=None)
                prices = {name: float(row[name]) for name in ("open", "high", "low")}
                yield bar(symbol, start, float(row["close"]), start + dt.timedelta(minutes=1), "1 Minute",
                          int(float(row["volume"])), **prices)  # fmt: skip

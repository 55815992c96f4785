"""Bars from files, in order of time: .csv, .csv.gz and .ndjson (also .json, .jsonl, and gzipped).

Columns, or keys of each line's object: symbol, open, high, low, close, volume, and the bar's start as `datetime` or
`ts_utc`; optional are exchange, interval, is_final and source. Others are left out. An empty cell is an absent value.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import heapq
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import msgspec

from connectors.polling import Poll
from dataflows.bar import Bar, Rejected, from_fields
from dataflows.calendar import egx
from dataflows.settings import Settings
from dataflows.sources import SourceError

BATCH: Final = 5_000  # a batch waits once for Kafka, and once for the disk to note it
_FORMATS: Final = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson"}
_KEPT: Final = (
    "symbol",
    "exchange",
    "interval",
    "datetime",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "source",
    "is_final",
)


def poll(settings: Settings) -> Poll[Bar]:
    """The source of the settings. Raises SourceError where its path is missing or holds no file of these kinds."""
    source, options = settings.source, settings.source.replay
    if options.path is None:
        raise SourceError("source.kind is replay: set source.replay.path (EGX_SOURCE__REPLAY__PATH) to a file or folder")
    path = settings.path(options.path)
    defaults = {"exchange": source.exchange, "interval": options.interval, "source": "replay"}
    files(path)

    def bars(stop: threading.Event) -> Iterator[list[Bar]]:
        while True:
            now = dt.datetime.now(dt.UTC)
            merged = _merged([partial(read, file, defaults, now) for file in files(path)])
            if options.speed:
                yield from _paced(merged, options.speed, stop)
            else:
                while batch := list(islice(merged, BATCH)):
                    yield batch
            if not source.follows or stop.wait(source.poll_seconds):
                return

    return bars


def _merged(reads: Sequence[Callable[[], Iterator[Bar]]]) -> Iterator[Bar]:
    """The bars of all files in order of time; a file is open from its first bar on only, so that there may be many."""
    firsts = [(next(bars, None), number) for number, open_file in enumerate(reads) for bars in (open_file(),)]
    later = sorted(((bar.datetime, number) for bar, number in firsts if bar is not None), reverse=True)
    heads: list[tuple[dt.datetime, int, Bar, Iterator[Bar]]] = []  # no two are equal in time and number
    while heads or later:
        while later and (not heads or later[-1] < heads[0][:2]):
            number = later.pop()[1]
            _push(heads, number, reads[number]())
        _, number, bar, bars = heapq.heappop(heads)
        yield bar
        _push(heads, number, bars)


def _push(heads: list[tuple[dt.datetime, int, Bar, Iterator[Bar]]], number: int, bars: Iterator[Bar]) -> None:
    if (bar := next(bars, None)) is not None:
        heapq.heappush(heads, (bar.datetime, number, bar, bars))


def _paced(bars: Iterator[Bar], speed: float, stop: threading.Event) -> Iterator[list[Bar]]:
    last: dt.datetime | None = None
    for start, batch in groupby(bars, attrgetter("datetime")):
        if last is not None and stop.wait((start - last).total_seconds() / speed):
            return
        last = start
        yield list(batch)


def files(path: Path) -> list[Path]:
    """The file, or the files of the folder, by name. Raises SourceError where there is none."""
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if _format(file) and file.is_file())
        if not found:
            raise SourceError(f"{path} holds no .csv, .csv.gz or .ndjson file: set source.replay.path to where they are")
        return found
    if not path.exists():
        raise SourceError(f"there is no {path}: set source.replay.path to a file or folder of bars")
    if not _format(path):
        raise SourceError(f"{path} is no .csv, .csv.gz or .ndjson file")
    return [path]


def _format(path: Path) -> str | None:
    name = path.with_suffix("") if path.suffix == ".gz" else path
    return _FORMATS.get(name.suffix.lower())


def read(path: Path, defaults: Mapping[str, Any], now: dt.datetime) -> Iterator[Bar]:
    """The bars of a file, in its order.

    :arg defaults: of the optional columns.
    :arg now: aware; a bar whose period is over by then is final, unless the file says otherwise.
    :raises SourceError: naming file and line.
    """
    calendar = egx()
    for line, row in _rows(path):
        fields = {**defaults, **{key: value for key, value in row.items() if value not in ("", None)}}
        if "datetime" not in fields and "ts_utc" in fields:
            fields["datetime"] = fields["ts_utc"]
        if fields["interval"] is None:
            raise SourceError(f"{path}:{line}: no interval: add such a column, or set source.replay.interval")
        absent = {key: None for key in ("open", "high", "low", "close", "volume") if key in row}
        bar = from_fields({**absent, **{key: fields[key] for key in _KEPT if key in fields}}, now)
        if isinstance(bar, Rejected):
            raise SourceError(f"{path}:{line}: {bar.reason}: mend the line, or take it out")
        if bar.is_final is None:
            bar = msgspec.structs.replace(bar, is_final=calendar.is_final(bar.interval, bar.datetime, now))
        yield bar


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and fields of each row."""
    line = 0

    def lines(raw: Iterable[bytes]) -> Iterator[str]:
        nonlocal line
        for text in raw:
            line += 1
            yield text.decode("utf-8-sig" if line == 1 else "utf-8")

    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw:
            if _format(path) == "csv":
                for row in csv.DictReader(lines(raw), strict=True):
                    if None in row or None in row.values():
                        raise SourceError(f"{path}:{line}: not as many values as the header has columns")
                    yield line, row
            else:
                for text in lines(raw):
                    if text.strip():
                        yield line, msgspec.json.decode(text, type=dict[str, Any])
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path}:{line + 1}: not whole, or no gzip file ({error})") from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error, msgspec.DecodeError, RecursionError) as error:
        raise SourceError(f"{path}:{line}: {error}") from None

"""Flows that only the benchmarks run: `python -m bytewax.run bench.flows:counting`, `:feeding` and `:offering`."""

from __future__ import annotations

import datetime as dt
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bytewax.dataflow import Dataflow

from bench.bars import SYMBOLS, messages
from connectors.influxdb import Server
from dataflows import process
from dataflows.bar import Bar, decode
from dataflows.ingest import ingest
from dataflows.live import live
from dataflows.settings import Settings
from dataflows.sources.replay import BATCH

FEED_SECONDS = 3600


class _Counted(Server):
    """In place of an InfluxDB: all work but the sending. Notes of each request the time, this process's CPU and the lines."""

    def __init__(self, path: Path) -> None:
        super().__init__("http://nowhere.invalid", "", "", "")
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def retention_seconds(self) -> None:
        return None

    def write(self, body: bytes) -> None:
        super().write(body)
        os.write(self._file, f"{time.time()} {time.process_time()} {body.count(10) + 1}\n".encode())

    def _request(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        return b""


def counting() -> Dataflow:
    """The live leg into a sink that only counts, into the file $BENCH_COUNTS and the process's id."""

    def counted(settings: Settings) -> Server:
        return _Counted(Path(f"{os.environ['BENCH_COUNTS']}.{os.getpid()}"))

    process.influxdb = counted
    return process.start(live=live)


def feeding() -> Dataflow:
    """The ingest leg on a made-up source: $BENCH_SYMBOLS bars at once, $BENCH_TICKS times a second.

    A bar's `datetime` is the moment at which the source had it, to the microsecond.
    """
    symbols, ticks = int(os.environ["BENCH_SYMBOLS"]), float(os.environ["BENCH_TICKS"])

    def poll(stop: threading.Event) -> Iterator[list[Bar]]:
        began = dt.datetime.now(dt.UTC)
        for tick in range(int(FEED_SECONDS * ticks)):
            # By the plan, so that a source that is held up has had its bars as early as one that is not.
            now = began + dt.timedelta(seconds=tick / ticks)
            if stop.wait(max(0.0, (now - dt.datetime.now(dt.UTC)).total_seconds())):
                return
            yield [
                Bar(f"S{number:05d}", "EGX", "1 Minute", now, 83.1, 84.0, 82.75, 83.9, 1_250_000, source="bench", is_final=True)
                for number in range(symbols)
            ]

    return process.start(ingest=lambda flow, run: ingest(flow, run, poll))


def offering() -> Dataflow:
    """The ingest leg on a source that has $BENCH_BARS bars ready; when it began to hand them out is in the file $BENCH_BEGAN."""
    now = dt.datetime.now(dt.UTC)
    ready = messages(int(os.environ["BENCH_BARS"]), SYMBOLS, now - dt.timedelta(days=3))
    bars = [bar for record in ready if isinstance(bar := decode(record.value, now), Bar)]

    def poll(stop: threading.Event) -> Iterator[list[Bar]]:
        Path(os.environ["BENCH_BEGAN"]).write_text(f"{time.time()} {time.process_time()}")
        for first in range(0, len(bars), BATCH):
            yield bars[first : first + BATCH]

    return process.start(ingest=lambda flow, run: ingest(flow, run, poll))

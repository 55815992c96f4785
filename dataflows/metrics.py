"""What the legs of a process measure about themselves, and who is told.

Counting happens once a chunk or batch, never once a bar. The figures go, each where it is wanted, to Prometheus
(`metrics.port`), to the measurement `pipeline` of InfluxDB (`metrics.influxdb`), and into a file of `metrics.folder` that
`python -m dataflows.status` and the page read.
"""

from __future__ import annotations

import datetime as dt
import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from connectors.errors import ConnectorError
from connectors.influxdb import Server, fields, series
from connectors.kafka import Reader
from dataflows.reports import Figures, Report, report_file, write_report
from dataflows.settings import SettingsError

log = logging.getLogger(__name__)

MEASUREMENT: Final = "pipeline"
KEPT: Final = 2_000  # newest observations, of which the percentiles are
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_RECORDS: Final = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536)
_COUNTERS: Final = {
    "read": "Records that came in: bars polled, or messages read from Kafka",
    "written": "Records that are durable where the leg writes to",
    "unchanged": "Bars that were not published, because nothing in them had changed",
    "expired": "Bars that were not written, because they are older than the store keeps",
    "rejected": "Messages that went to the dead-letter topic",
    "retries": "Writes that were tried again",
}


class Leg:
    """The counts and observations of one leg; its callers are the flow's threads."""

    def __init__(self, name: str, histograms: Mapping[str, Histogram]) -> None:
        self.name = name
        self.figures = Figures()
        self._lock = threading.Lock()
        self._histograms = {key: histogram.labels(name) for key, histogram in histograms.items()}
        self._newest: dict[str, deque[float]] = {key: deque(maxlen=KEPT) for key in histograms}
        self._before = (time.monotonic(), 0)

    def count(self, **added: int) -> None:
        with self._lock:
            for key, number in added.items():
                setattr(self.figures, key, getattr(self.figures, key) + number)

    def observe(self, key: str, value: float) -> None:
        self._histograms[key].observe(value)
        self._newest[key].append(value)

    def wrote(self, count: int) -> None:
        """So many records have become durable."""
        self.count(written=count)
        if count:
            self.figures.last_write_at = time.time()

    def now(self) -> Figures:
        """The figures as they are, with percentiles of the newest observations and the rate since the last call."""
        at, handled = time.monotonic(), max(self.figures.read, self.figures.written)
        self.figures.per_second = (handled - self._before[1]) / max(at - self._before[0], 1e-3)
        self._before = (at, handled)
        newest = {key: sorted(values) for key, values in self._newest.items()}
        return msgspec.structs.replace(
            self.figures,
            latency_p50_seconds=percentile(newest["latency"], 50),
            latency_p99_seconds=percentile(newest["latency"], 99),
            write_p50_seconds=percentile(newest["write"], 50),
            write_p99_seconds=percentile(newest["write"], 99),
            batch_records=percentile(newest["batch"], 50),
            epoch_seconds=percentile(newest["epoch"], 50),
        )


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile of ascending values, None of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else None


class _Counted(Collector):
    """Counters and gauges, taken from the legs when Prometheus asks."""

    def __init__(self, legs: Mapping[str, Leg], started_at: float) -> None:
        self._legs, self._started_at = legs, started_at

    def collect(self) -> Iterator[Metric]:
        for key, text in _COUNTERS.items():
            name = "write_retries" if key == "retries" else f"records_{key}"
            counter = CounterMetricFamily(f"egx_{name}", text, labels=["leg"])
            for leg in self._legs.values():
                counter.add_metric([leg.name], getattr(leg.figures, key))
            yield counter
        for key, name, text in (
            ("lag", "egx_consumer_lag_records", "Messages that the leg has yet to read"),
            ("last_write_at", "egx_last_write_timestamp_seconds", "When a record last became durable"),
            ("last_commit_at", "egx_last_commit_timestamp_seconds", "When the consumer group last committed"),
        ):
            gauge = GaugeMetricFamily(name, text, labels=["leg"])
            for leg in self._legs.values():
                if (value := getattr(leg.figures, key)) is not None:
                    gauge.add_metric([leg.name], value)
            yield gauge
        yield GaugeMetricFamily("egx_start_time_seconds", "When the process started", value=self._started_at)


class _Call(NamedTuple):
    """A call of an output: when, on the monotonic clock, the ingestion time of its oldest record, and how many it has."""

    begun: float
    oldest: dt.datetime | None
    records: int


class Metrics:
    """The measurements of a process."""

    def __init__(self, legs: Iterable[str]) -> None:
        self.started_at = time.time()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # each histogram's own start time: all are the process's
        self.registry = CollectorRegistry()
        histograms = {
            key: Histogram(name, text, ["leg"], buckets=buckets, registry=self.registry)
            for key, name, text, buckets in (
                ("write", "egx_write_duration_seconds", "How long a write took, until it was durable", _SECONDS),
                ("batch", "egx_write_batch_records", "Records a write", _RECORDS),
                ("epoch", "egx_epoch_duration_seconds", "From one commit point to the next", _SECONDS),
                (
                    "latency",
                    "egx_end_to_end_latency_seconds",
                    "From a bar's ingestion time until it can be queried; of the oldest bar of each write",
                    _SECONDS,
                ),
            )
        }
        self.legs = {leg: Leg(leg, histograms) for leg in legs}
        self.registry.register(_Counted(self.legs, self.started_at))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def serve(self, host: str, port: int) -> None:
        """Serves Prometheus at http://host:port/metrics. Raises SettingsError where that cannot be listened at."""
        try:
            start_http_server(port, host, self.registry)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SettingsError(
                    f"metrics.port {port} is taken on {host}: give each process a port of its own (EGX_METRICS__PORT), or none"
                ) from None
            raise SettingsError(
                f"cannot serve metrics at {host}:{port} ({error.strerror}): set metrics.host and metrics.port"
            ) from None

    def source(self, leg: str, step: Any, size: Callable[[Any], int]) -> Any:
        """The input, with its records counted and its epochs timed. :arg size: the records of one of its items' values."""
        measured = self.legs[leg]

        def watch(partition: Any) -> None:
            read, end = partition.next_batch, partition.snapshot
            begun: float | None = None

            def next_batch() -> Any:
                batch = read()
                if batch:
                    measured.count(read=sum(size(value) for _, value in batch))
                return batch

            def snapshot() -> Any:
                nonlocal begun
                now = time.monotonic()
                if begun is not None:
                    measured.observe("epoch", now - begun)
                begun = now
                return end()

            partition.next_batch, partition.snapshot = next_batch, snapshot

        return _watched(step, watch)

    def sink(
        self,
        leg: str,
        step: Any,
        published: Callable[[Any], dt.datetime | None] = lambda item: None,
        *,
        size: Callable[[Any], int] = len,
        durable_at_snapshot: bool = False,
    ) -> Any:
        """The output, with its writes timed: each from its call until the output knows that its records are durable.

        An output whose calls return before that says in its partition's `calls_underway` how many of the last are not durable.

        :arg published: the ingestion time of the oldest record of one of its items' values.
        :arg size: the records of one of them.
        :arg durable_at_snapshot: whether an epoch is written at its end: then its calls are one write, which begins there.
        """
        measured = self.legs[leg]

        def watch(partition: Any) -> None:
            write, end = partition.write_batch, partition.snapshot
            calls: deque[_Call] = deque()

            def durable(call: _Call) -> None:
                measured.observe("write", time.monotonic() - call.begun)
                measured.observe("batch", call.records)
                if call.oldest is not None:
                    measured.observe("latency", max(0.0, time.time() - call.oldest.timestamp()))

            def settle() -> None:
                while len(calls) > getattr(partition, "calls_underway", 0):
                    durable(calls.popleft())

            def write_batch(values: list[Any]) -> None:
                begun = time.monotonic()
                write(values)
                if records := sum(size(value) for value in values):
                    times = [at for value in values if value and (at := published(value)) is not None]
                    calls.append(_Call(begun, min(times, default=None), records))
                if not durable_at_snapshot:
                    settle()

            def snapshot() -> Any:
                begun = time.monotonic()
                state = end()
                if durable_at_snapshot and calls:
                    times = [call.oldest for call in calls if call.oldest is not None]
                    durable(_Call(begun, min(times, default=None), sum(call.records for call in calls)))
                    calls.clear()
                settle()
                return state

            partition.write_batch, partition.snapshot = write_batch, snapshot

        return _watched(step, watch)


class Told:
    """A `connectors.kafka.Reader` that notes a leg's lag and commits, and tells another."""

    def __init__(self, leg: Leg, other: Reader) -> None:
        self._leg, self._other = leg, other
        self._lags: dict[int, int] = {}

    def read(self, group: str, positions: Mapping[int, int], lags: Mapping[int, int]) -> None:
        self._lags.update(lags)
        self._leg.figures.lag = sum(self._lags.values())
        self._other.read(group, positions, lags)

    def committed(self, group: str, offsets: Mapping[int, int]) -> None:
        self._leg.figures.last_commit_at = time.time()
        self._other.committed(group, offsets)


def _watched(step: Any, watch: Callable[[Any], None]) -> Any:
    build = step.build_part

    def build_part(*args: Any) -> Any:
        partition = build(*args)
        watch(partition)
        return partition

    step.build_part = build_part
    return step


class Reporter:
    """Writes the figures every few seconds into the process's file and, where wanted, to InfluxDB.

    Neither ever stops a leg: what cannot be written is told of once and left out.
    """

    def __init__(
        self,
        metrics: Metrics,
        folder: Path,
        seconds: float,
        server: Callable[[], Server] | None,
        source: Callable[[], str],
        stopped: Callable[[], bool],
        more: Callable[[], Iterable[bytes]] = tuple,
    ) -> None:
        """
        :arg server: opens InfluxDB, None where it gets nothing.
        :arg source: what the bars are, for people.
        :arg stopped: whether the process was asked to end.
        :arg more: further lines for InfluxDB, with every report.
        """
        self._metrics, self._folder, self._seconds, self._open, self._source = metrics, folder, seconds, server, source
        self._stopped, self._more = stopped, more
        self._server: Server | None = None
        self._silenced: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    @property
    def path(self) -> Path:
        return report_file(self._folder, self._metrics.legs)

    def start(self) -> None:
        self._thread.start()

    def end(self, error: str | None = None) -> None:
        """Writes the last report. :arg error: why the process ends, None where it ends well."""
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join(self._seconds)
            self._report(ended=True, error=error)

    def _run(self) -> None:
        self._report()
        while not self._ended.wait(self._seconds):
            self._report()

    def _report(self, *, ended: bool = False, error: str | None = None) -> None:
        figures = {name: leg.now() for name, leg in self._metrics.legs.items()}
        report = Report(
            tuple(figures),
            os.getpid(),
            self._metrics.started_at,
            time.time(),
            self._seconds,
            self._source(),
            ended,
            error,
            figures,
            self._stopped(),
        )
        try:
            write_report(self.path, report)
        except OSError as failure:
            self._tell_once("file", f"cannot write {self.path}: {failure.strerror}: `just status` will not see this process")
        if self._open is not None:
            self._to_influxdb(self._open, report)

    def _to_influxdb(self, connect: Callable[[], Server], report: Report) -> None:
        try:
            if self._server is None:
                server = connect()
                server.retention_seconds()
                self._server = server
            self._server.write(b"\n".join((*lines(report), *self._more())))
            self._silenced.discard("influxdb")
        except ConnectorError as failure:
            self._tell_once("influxdb", f"figures are not written: {failure}")

    def _tell_once(self, about: str, text: str) -> None:
        if about not in self._silenced:
            self._silenced.add(about)
            log.warning("%s", text)


def lines(report: Report) -> Iterator[bytes]:
    """The report as points of InfluxDB, one a leg."""
    for leg, figures in report.figures.items():
        values = msgspec.structs.asdict(figures)
        values["uptime_seconds"] = report.updated_at - report.started_at
        values["up"] = not report.ended
        values["failed"] = report.error is not None
        values["stopped"] = report.stopped
        yield b"%b %b %d" % (series(MEASUREMENT, {"leg": leg}), fields(values), int(report.updated_at * 1e6))

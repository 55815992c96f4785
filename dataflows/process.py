"""What the legs share when they run as a process: its settings, its end, its errors, its connection to Kafka."""

from __future__ import annotations

import atexit
import datetime as dt
import functools
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from bytewax.dataflow import Dataflow
from bytewax.inputs import AbortExecution, FixedPartitionedSource
from bytewax.outputs import FixedPartitionedSink

from connectors import kafka
from connectors.errors import ConnectorError, Stopped, TransientError
from connectors.influxdb import Server
from dataflows import logs, market, metrics
from dataflows.metrics import Metrics, Told
from dataflows.progress import Handover, Progress, Reporter
from dataflows.reports import LEGS, Report, report_file, write_report
from dataflows.settings import EMBEDDED, Settings, SettingsError, load
from dataflows.sources import SourceError

Step = TypeVar("Step", bound=FixedPartitionedSource[Any, Any] | FixedPartitionedSink[Any, Any])
log = logging.getLogger(__name__)
GRACE_SECONDS = 8.0  # Docker and Kubernetes kill after 10 and 30
_OURS = (ConnectorError, SettingsError, SourceError)


@dataclass
class Run:
    """One run of one or more legs; `guard` is put around every input and output."""

    settings: Settings
    stop: threading.Event
    progress: Progress
    handover: Handover
    client: dict[str, Any]
    broker: kafka.InProcessBroker | None
    guard: Callable[[Any], Any] = lambda step: step
    failing: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda call: call
    """Put around a function of an operator that may fail, as `guard` is around an input or output."""
    metrics: Metrics = field(default_factory=lambda: Metrics(LEGS))

    @property
    def alone(self) -> bool:
        """Whether this process is of one leg, so that no other waits for what it does."""
        return len(self.metrics.legs) == 1

    @property
    def wait_seconds(self) -> float:
        """How long an input may wait for something to come in: where it is the process's only one, nobody is held up."""
        return 0.1 if self.alone and self.settings.kafka.readers == 1 else 0

    def check(self, open_store: Callable[[], object]) -> None:
        """Tries a store once at the start, so that wrong settings show at once and not with the first bar.

        One that merely does not answer yet is left to the output, which retries.
        """
        try:
            open_store()
        except TransientError as error:
            log.warning("%s: trying again with the first bar", error)

    def kafka_source(self, leg: str) -> kafka.KafkaSource:
        settings = self.settings.kafka
        group: str = getattr(self.settings, leg).group
        source = kafka.KafkaSource(
            self.client,
            settings.topic,
            group,
            # What the in-process broker holds ends with this process: it is read to its end first, see `Handover.end`.
            stop=self.stop if self.broker is None else threading.Event(),
            until=self.handover.end,
            reader=Told(self.metrics.legs[leg], self.handover),
            readers=settings.readers,
            batch_messages=settings.batch_messages,
            retry_seconds=self.settings.retry_seconds,
            wait_seconds=self.wait_seconds,
        )
        guarded: kafka.KafkaSource = self.guard(self.metrics.source(leg, source, lambda chunk: len(chunk.messages)))
        return guarded

    def dead_letter_sink(self, leg: str) -> kafka.KafkaSink:
        def count(written: int, ends: object) -> None:
            self.progress.rejected += written
            self.metrics.legs[leg].count(rejected=written)

        sink: kafka.KafkaSink = self.guard(
            kafka.KafkaSink(
                self.client,
                self.settings.kafka.dead_letter_topic,
                stop=self.stop,
                retry_seconds=self.settings.retry_seconds,
                on_written=count,
            )
        )
        return sink


def kafka_client(settings: Settings) -> dict[str, Any]:
    """librdkafka's properties, of any of its clients."""
    client: dict[str, Any] = {
        "bootstrap.servers": settings.kafka.bootstrap_servers,
        "client.id": "egx",
        **settings.kafka.client,
    }
    if settings.kafka.username:
        client["sasl.username"] = settings.kafka.username
    if settings.kafka.password:
        client["sasl.password"] = settings.kafka.password.get_secret_value()
    return client


def open_run(settings: Settings, legs: tuple[str, ...], stop: threading.Event) -> Run:
    """Reaches Kafka, and makes the topics that are missing.

    :arg legs: those of this process; the in-process broker will do only for all of them.
    """
    groups = tuple(getattr(settings, leg).group for leg in legs if leg != "ingest")
    client = kafka_client(settings)
    broker = None
    topics = (settings.kafka.topic, settings.kafka.dead_letter_topic)
    if settings.kafka.bootstrap_servers == EMBEDDED:
        if set(legs) != set(LEGS):
            raise SettingsError(
                "one leg alone needs a broker that others can reach: set kafka.bootstrap_servers "
                "(EGX_KAFKA__BOOTSTRAP_SERVERS=host:port), or run every leg at once as dataflows.main"
            )
        broker = kafka.InProcessBroker()
        client["bootstrap.servers"] = broker.bootstrap_servers
        for topic in topics:
            broker.create_topic(topic)
    else:
        kafka.ensure_topics(
            client,
            [
                kafka.Topic(
                    topic,
                    settings.kafka.partitions,
                    settings.kafka.retain_days,
                    settings.kafka.replication_factor,
                    # The broker's time, not a producer's: what times are believed is measured from it.
                    {"compression.type": "zstd", "max.message.bytes": "10485760", "message.timestamp.type": "LogAppendTime"},
                )
                for topic in topics
            ],
        )
    progress = Progress(legs)
    ends = kafka.end_offsets(client, settings.kafka.topic) if set(legs) == set(LEGS) else {}
    handover = Handover(progress, groups, bounded=broker is not None, ends=ends)
    return Run(settings, stop, progress, handover, client, broker, metrics=Metrics(legs))


def start(**legs: Callable[[Dataflow, Run], None]) -> Dataflow:
    """The dataflow of a process: reads the settings, adds the legs, and sees to signals, errors and the progress line.

    Ends the process with one line where something is wrong that somebody has to mend.
    """
    logs.configure("text", tuple(legs))
    stop = threading.Event()
    _stop_on_signals(stop)
    settings = None
    try:
        settings = load()
        logs.configure(settings.logs, tuple(legs))
        run = open_run(settings, tuple(legs), stop)
        run.guard, run.failing = guarded, _failing
        flow = Dataflow("_".join(legs))
        for add in legs.values():
            add(flow, run)
        if settings.metrics.port is not None:
            run.metrics.serve(settings.metrics.host, settings.metrics.port)
    except _OURS as error:
        if settings is not None:
            _report_failed_start(settings, tuple(legs), str(error))
        if logs.in_json():
            logs.say_error(str(error))
            raise SystemExit(1) from None
        raise SystemExit(f"egx: {error}") from None
    progress = Reporter(run.progress, settings.progress_seconds)
    progress.start()
    figures = metrics.Reporter(
        run.metrics,
        settings.path(settings.metrics.folder),
        settings.metrics.seconds,
        (lambda: influxdb(settings)) if settings.metrics.influxdb else None,
        lambda: run.progress.source,
        stop.is_set,
        lambda: market.lines(settings.source.exchange, settings.source.symbols, now()),
    )
    figures.start()
    _reporting.append((progress, figures))
    atexit.register(_end, progress, figures)
    collect_seldom()
    return flow


def _report_failed_start(settings: Settings, legs: tuple[str, ...], error: str) -> None:
    time_now, seconds = time.time(), settings.metrics.seconds
    report = Report(legs, os.getpid(), time_now, time_now, seconds, ended=True, error=error)
    with suppress(OSError):  # the error itself is told in any case
        write_report(report_file(settings.path(settings.metrics.folder), legs), report)


def collect_seldom() -> None:
    """Lets Python look for cycles among 100,000 new objects, not 700, and never among what was imported.

    A chunk of messages is tens of thousands of objects that have no cycles and are freed by their counts; to look at them again
    and again cost 2 us a bar.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def _stop_on_signals(stop: threading.Event) -> None:
    """SIGTERM and SIGINT set the event; a process that has not ended in the grace that follows is ended.

    A handler of Python's runs only when the main thread is back in Python, which may be never while Bytewax waits for another
    process, or late while a client waits for a broker that is frozen. The wake-up pipe is written at once, and read by a thread.
    An abrupt end is safe: nothing is committed that is not durable.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while not {signal.SIGTERM, signal.SIGINT} & set(reading.recv(1)):
            pass
        stop.set()
        time.sleep(GRACE_SECONDS)
        logs.say_error(f"not ended {GRACE_SECONDS:g} s after it was asked to: ends now, and what is not done comes again")
        writing.close()
        os._exit(0)

    threading.Thread(target=watch, name="signals", daemon=True).start()


_reporting: list[tuple[Reporter, metrics.Reporter]] = []
"""What is to be ended when the process fails."""


def _end(progress: Reporter, figures: metrics.Reporter) -> None:
    if getattr(sys, "last_value", None) is None:  # the flow returned, and did not raise: its last epoch is durable
        kafka.commit_ended()
    progress.end()
    figures.end()


def influxdb(settings: Settings) -> Server:
    """The InfluxDB bucket of the settings. Raises SettingsError where its token is missing."""
    influx = settings.influxdb
    if influx.token is None:
        raise SettingsError(
            "live.store is influxdb, or metrics.influxdb is true: set the token in the environment, EGX_INFLUXDB__TOKEN"
        )
    ca_file = settings.path(influx.ca_file) if influx.ca_file else None
    if ca_file and not ca_file.is_file():
        raise SettingsError(f"influxdb.ca_file: there is no file {ca_file}")
    return Server(
        influx.url,
        influx.org,
        influx.bucket,
        influx.token.get_secret_value(),
        retain_days=influx.retain_days,
        timeout_seconds=influx.timeout_seconds,
        ca_file=ca_file,
    )


def guarded(step: Step) -> Step:
    """The step, with its failures ending the process at once and in one line.

    Left to Bytewax, they print the backtrace of a panic. An abrupt end is safe: nothing is committed that is not durable.
    """
    build: Callable[..., Any] = step.build_part

    def build_part(*args: Any) -> Any:
        partition = _failing(build)(*args)
        for method in ("next_batch", "write_batch", "snapshot"):
            if hasattr(partition, method):
                setattr(partition, method, _failing(getattr(partition, method)))
        return partition

    setattr(step, "build_part", build_part)  # noqa: B010 - on the object, in front of its class's
    return step


def _failing(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def inner(*args: Any) -> Any:
        try:
            return call(*args)
        except (StopIteration, AbortExecution):
            raise
        except Exception as error:
            fail(error)

    return inner


def fail(error: Exception) -> NoReturn:
    """Ends the process with status 1: one line for what we foresaw, the traceback for a defect.

    With status 0 where it was asked to end: what was not finished is not committed.
    """
    ours = isinstance(error, _OURS)
    text = str(error) if ours else f"this is a defect, please report it: {error!r}"
    for progress, _ in _reporting:
        progress.silence()
    logs.say_error(text, None if ours else error)
    for _, figures in _reporting:
        figures.end(None if isinstance(error, Stopped) else text)
    if sys.stderr.isatty():
        print("\033[?25h", end="", file=sys.stderr)  # the progress line had hidden the cursor
    sys.stderr.flush()
    os._exit(0 if isinstance(error, Stopped) else 1)


def now() -> dt.datetime:
    """The time, aware, in UTC."""
    return dt.datetime.now(dt.UTC)

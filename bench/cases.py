"""The cases. Each takes its sizes and gives rows: what, the measured value, its unit, and the ratio to its peer."""

from __future__ import annotations

import datetime as dt
import gzip
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from influxdb_client import InfluxDBClient

from bench import telegraf
from bench.bars import fill, messages
from bench.process import Usage, leg, until
from connectors.influxdb import Server, lines
from connectors.kafka import Chunk
from dataflows.live import to_points
from dataflows.messages import decode
from tests.servers.influxdb import Influxdb
from tests.servers.kafka import Kafka
from tests.servers.legs import committed, ends
from tests.servers.s3 import S3

TOPIC = "bars"


@dataclass
class Row:
    """One line of the table."""

    case: str
    what: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Place:
    """The servers of one run, with a topic of `bars` waiting."""

    kafka: Kafka
    influxdb: Influxdb
    s3: S3
    folder: Path
    bars: int

    @classmethod
    @contextmanager
    def open(cls, folder: Path, bars: int) -> Iterator[Place]:
        with Kafka(folder / "kafka") as kafka, Influxdb(folder / "influxdb") as influxdb, S3(folder / "s3") as s3:
            fill(kafka.address, TOPIC, bars)
            yield cls(kafka, influxdb, s3, folder, bars)

    @property
    def token(self) -> str:
        return self.influxdb.environment()["EGX_TEST_INFLUXDB_TOKEN"]

    @property
    def org(self) -> str:
        return self.influxdb.environment()["EGX_TEST_INFLUXDB_ORG"]

    def settings(self, name: str, **more: str) -> dict[str, str]:
        return {
            "EGX_KAFKA__BOOTSTRAP_SERVERS": self.kafka.address,
            "EGX_KAFKA__TOPIC": TOPIC,
            "EGX_LIVE__GROUP": name,
            "EGX_LIVE__STORE": "influxdb",
            "EGX_INFLUXDB__URL": self.influxdb.url,
            "EGX_INFLUXDB__TOKEN": self.token,
            "EGX_INFLUXDB__ORG": self.org,
            "EGX_INFLUXDB__BUCKET": name,
            "EGX_ARCHIVE__GROUP": name,
            "EGX_ARCHIVE__URL": f"s3://{name}/streaming/",
            "EGX_ARCHIVE__S3__ENDPOINT_URL": self.s3.url,
            "EGX_PROGRESS_SECONDS": "0",
            **{key: value for key, value in self.s3.environment().items() if key.startswith("AWS_")},
            **more,
        }

    def queryable(self, bucket: str) -> Callable[[], bool]:
        """Whether every bar can be queried; asks five times a second at most."""
        client = InfluxDBClient(self.influxdb.url, self.token, org=self.org, timeout=60_000)
        closes = f'from(bucket: "{bucket}") |> range(start: -30d) |> filter(fn: (r) => r._field == "close")'
        query = f"{closes} |> count() |> group() |> sum()"
        asked = [0.0]

        def done() -> bool:
            if time.monotonic() - asked[0] < 0.2:
                return False
            try:
                return sum(r.get_value() for table in client.query_api().query(query) for r in table.records) >= self.bars
            except Exception:  # the bucket is not there yet
                return False
            finally:
                asked[0] = time.monotonic()

        return done

    def make_bucket(self, name: str) -> None:
        Server(self.influxdb.url, self.org, name, self.token).retention_seconds()

    def consume(self, group: str, each: Callable[[Chunk], None] = lambda chunk: None) -> None:
        """Consumes the whole topic by a bare client."""
        consumer = Consumer({"bootstrap.servers": self.kafka.address, "group.id": group, "enable.auto.commit": False})
        partitions = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
        consumer.assign([TopicPartition(TOPIC, p, 0) for p in partitions])
        left = self.bars
        while left:
            got = consumer.consume(10_000, 1.0)
            left -= len(got)
            if got:
                each(Chunk(TOPIC, 0, got))
        consumer.close()


def live_against_telegraf(place: Place, rounds: int) -> list[Row]:
    """The backlog -> all queryable in InfluxDB, in turn with Telegraf; whole processes, their start included."""
    program = str(telegraf.binary())
    ours: list[Usage] = []
    theirs: list[Usage] = []
    for number in range(rounds):
        name = f"live{number}"
        ours.append(until(leg("live"), place.settings(name), place.queryable(name)))
        peer = f"telegraf{number}"
        place.make_bucket(peer)
        path = place.folder / f"{peer}.conf"
        path.write_text(
            telegraf.configuration(place.kafka.address, TOPIC, peer, place.influxdb.url, place.token, place.org, peer)
        )
        theirs.append(until([program, "--config", str(path)], {}, place.queryable(peer)))
    faster = statistics.median(b.wall_seconds / a.wall_seconds for a, b in zip(ours, theirs, strict=True))
    cpu = statistics.median(usage.cpu_seconds for usage in ours) / place.bars * 1e6
    peer_cpu = statistics.median(usage.cpu_seconds for usage in theirs) / place.bars * 1e6
    peak = max(usage.peak_mb for usage in ours)
    return [
        Row("live", "bars a second", place.bars / statistics.median(u.wall_seconds for u in ours), "bars/s"),
        Row("live", "Telegraf: bars a second", place.bars / statistics.median(u.wall_seconds for u in theirs), "bars/s"),
        Row("live", "times as fast as Telegraf", faster, "x", ">= 2", faster >= 2),
        Row("live", "CPU a bar, start included", cpu, "us", "<= 5", cpu <= 5),
        Row("live", "Telegraf: CPU a bar", peer_cpu, "us"),
        Row("live", "peak memory", peak, "MB", "<= 250", peak <= 250),
    ]


def live_against_ready_lines(place: Place, rounds: int) -> list[Row]:
    """The live leg against one client that sends ready gzip bodies of 5,000 lines."""
    bodies: list[bytes] = []
    now = dt.datetime.now(dt.UTC)

    def pack(chunk: Chunk) -> None:
        points = to_points(decode(chunk, "live", now))
        bodies.extend(gzip.compress(lines(points[i : i + 5000]), 1) for i in range(0, len(points), 5000))

    place.consume("pack", pack)
    ratios = []
    for number in range(rounds):
        name = f"ready{number}"
        place.make_bucket(name)
        url = f"{place.influxdb.url}/api/v2/write?org={place.org}&bucket={name}&precision=us"
        headers = {"Authorization": f"Token {place.token}", "Content-Encoding": "gzip"}
        began = time.perf_counter()
        for body in bodies:
            urllib.request.urlopen(urllib.request.Request(url, body, headers)).close()
        done = place.queryable(name)
        while not done():
            time.sleep(0.02)
        ready = time.perf_counter() - began
        leg_name = f"against_ready{number}"
        ratios.append(ready / until(leg("live"), place.settings(leg_name), place.queryable(leg_name)).wall_seconds)
    ratio = statistics.median(ratios)
    return [Row("live", "share of the rate of ready lines", ratio, "x", ">= 0.8", ratio >= 0.8)]


def archive_against_consuming(place: Place, rounds: int) -> list[Row]:
    """The archive leg -> S3, until it has committed, against consuming alone."""
    walls, ratios = [], []
    goal = ends(place.kafka.address, TOPIC)
    for number in range(rounds):
        began = time.perf_counter()
        place.consume(f"alone{number}")
        alone = time.perf_counter() - began
        name = f"archive{number}"
        last = [0.0]

        def committed_all(name: str = name, last: list[float] = last) -> bool:
            if time.monotonic() - last[0] < 0.2:
                return False
            last[0] = time.monotonic()
            return committed(place.kafka.address, name, TOPIC) == goal

        usage = until(leg("archive", "-s", "1"), place.settings(name), committed_all)
        walls.append(usage.wall_seconds)
        ratios.append(alone / usage.wall_seconds)
    ratio = statistics.median(ratios)
    return [
        Row("archive", "bars a second", place.bars / statistics.median(walls), "bars/s"),
        Row("archive", "share of the rate of consuming alone", ratio, "x", ">= 0.5", ratio >= 0.5),
    ]


def ingest_against_producing(place: Place, rounds: int) -> list[Row]:
    """Bars -> new or changed -> Kafka with acks=all, against confluent-kafka's own loop over ready messages."""
    from connectors.kafka import Writer
    from dataflows.ingest import to_records
    from dataflows.published import Published

    count = min(place.bars, 100_000)
    now = dt.datetime.now(dt.UTC)
    ready = list(messages(count, 250, now - dt.timedelta(days=1)))
    from dataflows.bar import Bar
    from dataflows.bar import decode as decode_one

    bars = [bar for record in ready if isinstance(bar := decode_one(record.value, now), Bar)]
    ratios = []
    for number in range(rounds):
        producer = Producer({"bootstrap.servers": place.kafka.address, "acks": "all", "enable.idempotence": True, "linger.ms": 5})
        began = time.perf_counter()
        for record in ready:
            while True:
                try:
                    producer.produce(f"{TOPIC}", record.value, record.key)
                    break
                except BufferError:
                    producer.poll(0.01)
        producer.flush()
        alone = time.perf_counter() - began
        published = Published(place.folder / f"state{number}.sqlite", "bench", lambda ends: True)
        writer = Writer({"bootstrap.servers": place.kafka.address}, TOPIC, stop=threading.Event())
        began = time.perf_counter()
        for first in range(0, count, 1000):
            stamped = published.stamp(published.changed(bars[first : first + 1000]), now)
            published.written(len(stamped), writer.write(to_records(stamped)))
        ratios.append(alone / (time.perf_counter() - began))
    ratio = statistics.median(ratios)
    return [Row("ingest", "share of the rate of a bare produce loop", ratio, "x", ">= 0.6", ratio >= 0.6)]


def start_and_idle(place: Place, rounds: int, seconds: float) -> list[Row]:
    """A leg's start until it has read, and what it costs with nothing to do."""
    starts = []
    for number in range(rounds):
        name = f"start{number}"
        place.make_bucket(name)
        url, token, org = place.influxdb.url, place.token, place.org
        client = InfluxDBClient(url, token, org=org)
        query = f'from(bucket: "{name}") |> range(start: -30d) |> limit(n: 1)'
        starts.append(
            until(leg("live"), place.settings(name), lambda client=client, query=query: bool(client.query_api().query(query)))  # type: ignore[misc]
        )
    began: list[float] = []

    def idle_is_over() -> bool:
        if not began and committed(place.kafka.address, "idle", TOPIC) == ends(place.kafka.address, TOPIC):
            began.append(time.monotonic())
        return bool(began) and time.monotonic() - began[0] > seconds

    before = until(leg("live", "-s", "1"), place.settings("idle"), lambda: bool(began) or idle_is_over())
    began.clear()
    after = until(leg("live", "-s", "1"), place.settings("idle"), idle_is_over)
    idle = max(0.0, after.cpu_seconds - _start_cpu(place)) / seconds * 100
    return [
        Row("start", "wall until the first batch is queryable", statistics.median(u.wall_seconds for u in starts), "s"),
        Row("idle", "CPU of one leg with nothing to do", idle, "% of a core", "<= 2 (three legs)", idle * 3 <= 2),
        Row("idle", "memory of one leg", before.peak_mb, "MB"),
    ]


def _start_cpu(place: Place) -> float:
    """CPU seconds of a leg that starts with nothing to read and is ended at once."""
    began = time.monotonic()
    return until(leg("live", "-s", "1"), place.settings("idle"), lambda: time.monotonic() - began > 4).cpu_seconds

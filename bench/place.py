"""Where the cases run: real servers of their own, topics full of bars, and how to see that a leg is done."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from confluent_kafka import Consumer, TopicPartition

from bench.bars import MINUTE, SYMBOLS, fill
from connectors.influxdb import Server
from connectors.kafka import Chunk
from tests.servers import process
from tests.servers.influxdb import Influxdb
from tests.servers.kafka import Kafka
from tests.servers.legs import committed, ends
from tests.servers.s3 import S3

TOPIC = "bars"
_http = urllib3.PoolManager(retries=False, timeout=60)


@dataclass
class Row:
    """One line of the table; `ratio` is ours to the peer's as the goal has it, `met` None where there is no goal."""

    work: str
    measure: str
    ours: float
    unit: str
    peer: float | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None


@dataclass
class Place:
    """The servers of one run, with a topic of `bars` 1-minute bars of 250 symbols waiting; cases fill further ones."""

    kafka: Kafka
    influxdb: Influxdb
    s3: S3
    folder: Path
    bars: int
    topics: dict[str, dt.datetime] = field(default_factory=dict)
    """Topic -> the time of its first bars."""

    @classmethod
    @contextmanager
    def open(cls, folder: Path, bars: int) -> Iterator[Place]:
        with Kafka(folder / "kafka") as kafka, Influxdb(folder / "influxdb") as influxdb, S3(folder / "s3") as s3:
            place = cls(kafka, influxdb, s3, folder, bars)
            place.fill(TOPIC, bars)
            yield place

    def fill(self, topic: str, bars: int, **options: Any) -> None:
        """Makes a topic of bars, unless it is there; options as `bench.bars.fill`."""
        if topic not in self.topics:
            self.topics[topic] = fill(self.kafka.address, topic, bars, **options)

    @property
    def token(self) -> str:
        return self.influxdb.environment()["EGX_TEST_INFLUXDB_TOKEN"]

    @property
    def org(self) -> str:
        return self.influxdb.environment()["EGX_TEST_INFLUXDB_ORG"]

    def settings(self, name: str, topic: str = TOPIC, **more: str) -> dict[str, str]:
        """The environment of a leg whose group, bucket and folders have a name of their own."""
        return {
            "EGX_KAFKA__BOOTSTRAP_SERVERS": self.kafka.address,
            "EGX_KAFKA__TOPIC": topic,
            "EGX_LIVE__GROUP": name,
            "EGX_LIVE__STORE": "influxdb",
            "EGX_INFLUXDB__URL": self.influxdb.url,
            "EGX_INFLUXDB__TOKEN": self.token,
            "EGX_INFLUXDB__ORG": self.org,
            "EGX_INFLUXDB__BUCKET": name,
            "EGX_ARCHIVE__GROUP": name,
            "EGX_ARCHIVE__URL": f"s3://{name}/streaming/",
            "EGX_ARCHIVE__S3__ENDPOINT_URL": self.s3.url,
            "EGX_INGEST__STATE": str(self.folder / f"{name}.sqlite"),
            "EGX_METRICS__FOLDER": str(self.folder / f"{name}.status"),
            "EGX_PROGRESS_SECONDS": "0",
            **{key: value for key, value in self.s3.environment().items() if key.startswith("AWS_")},
            **more,
        }

    def make_bucket(self, name: str) -> None:
        Server(self.influxdb.url, self.org, name, self.token).retention_seconds()

    def drop_bucket(self, name: str) -> None:
        """Removes a bucket, so that InfluxDB has no work with it while something else is measured."""
        headers = {"Authorization": f"Token {self.token}"}
        found = _http.request("GET", f"{self.influxdb.url}/api/v2/buckets?name={name}&org={self.org}", headers=headers).json()
        for bucket in found["buckets"]:
            _http.request("DELETE", f"{self.influxdb.url}/api/v2/buckets/{bucket['id']}", headers=headers)

    def query(self, flux: str) -> list[Mapping[str, str]]:
        """The rows of a query; none while its bucket is not there yet."""
        answer = _http.request(
            "POST",
            f"{self.influxdb.url}/api/v2/query?org={self.org}",
            body=flux.encode(),
            headers={"Authorization": f"Token {self.token}", "Content-Type": "application/vnd.flux", "Accept": "text/csv"},
        )
        if answer.status != 200:
            return []
        header, *rows = [line.split(",") for line in answer.data.decode().splitlines() if line] or [[]]
        return [dict(zip(header, row, strict=True)) for row in rows if row != header]

    def queryable(self, bucket: str) -> Callable[[], bool]:
        """Whether every bar of the topic can be queried.

        All are counted only once those of the last minute are there: to count half a million again and again takes InfluxDB a
        quarter of the time that it takes to write them.
        """

        def counted(start: dt.datetime) -> int:
            flux = (
                f'from(bucket: "{bucket}") |> range(start: {start.isoformat()}) |> filter(fn: (r) => r._field == "close")'
                " |> count() |> group() |> sum()"
            )
            return sum(int(row["_value"]) for row in self.query(flux))

        first = self.topics[TOPIC]
        minutes, more = divmod(self.bars - 1, SYMBOLS)
        last = first + minutes * MINUTE
        return seldom(lambda: counted(last) > more and counted(first) >= self.bars, 0.05)

    def all_committed(self, group: str, topic: str = TOPIC) -> Callable[[], bool]:
        """Whether a group has committed the topic's ends."""
        goal = ends(self.kafka.address, topic)
        return seldom(lambda: committed(self.kafka.address, group, topic) == goal)

    def consume(self, group: str, each: Callable[[Chunk], None] = lambda chunk: None, **properties: Any) -> None:
        """Consumes the whole topic by a bare client, with librdkafka's defaults but for `properties`."""
        client = {"bootstrap.servers": self.kafka.address, "group.id": group, "enable.auto.commit": False}
        consumer = Consumer({**client, **properties})
        partitions = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
        consumer.assign([TopicPartition(TOPIC, p, 0) for p in partitions])
        left = self.bars
        while left:
            got = consumer.consume(min(10_000, left), 1.0)
            left -= len(got)
            if got:
                each(Chunk(TOPIC, 0, got))
        consumer.close()


def in_turn(rounds: int, one: Callable[[int], None], other: Callable[[int], None]) -> None:
    """Runs two things for a number of rounds, the one first and the other first by turns; each gets the round's number."""
    for number in range(rounds):
        for run in (one, other) if number % 2 == 0 else (other, one):
            run(number)


@contextmanager
def cpu_of(server: process.Server, seconds: list[float]) -> Iterator[None]:
    """Adds a server's user and system time within."""
    if server.process is None:
        raise RuntimeError(f"{server.name} has ended")
    before = server.process.cpu_times()
    yield
    after = server.process.cpu_times()
    seconds.append(after.user + after.system - before.user - before.system)


def seldom(condition: Callable[[], bool], seconds: float = 0.2) -> Callable[[], bool]:
    """The condition, asked for every `seconds` at most: asking costs the servers time."""
    asked = [0.0]

    def ask() -> bool:
        if time.monotonic() - asked[0] < seconds:
            return False
        try:
            return condition()
        finally:
            asked[0] = time.monotonic()

    return ask

"""One run of the crash suite: `run(faults, seed)`.

Real Kafka, InfluxDB and S3, each behind proxies; the live and the archive leg as processes under a supervisor that starts them
again whenever they end; a producer that writes bars with revisions, exact duplicates and poison. Faults come one after another,
chosen by the seed. At the end everything is counted against what the topic holds.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from confluent_kafka import Consumer, Producer, TopicPartition
from influxdb_client import InfluxDBClient

from connectors.kafka import headers
from dataflows.bar import Bar, Rejected, canonical, decode, encode
from dataflows.dead_letters import read
from dataflows.settings import SYMBOLS
from tests.crash.http_faults import HttpFaults
from tests.servers.influxdb import Influxdb
from tests.servers.kafka import Kafka
from tests.servers.process import Server
from tests.servers.s3 import S3
from tests.servers.toxiproxy import Proxy, Toxiproxy

TOPIC, DEAD_LETTERS, BUCKET = "egx_market_data", "egx_market_data.dead_letter", "egx-data-bucket"
GROUPS = {"live": "egx-influxdb-writer", "archive": "egx-s3-writer"}
PROJECT = Path(__file__).resolve().parent.parent.parent
POISON = (b"", b"not json", b"[]", b'{"symbol":"COMI"}', b"\xff\xfe", b'{"symbol":"../x","exchange":"EGX"}')


@dataclass
class Result:
    """What a run did and what it left; the counts that must be 0 come last."""

    seed: int
    seconds: float = 0
    faults: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    """Leg -> how often the supervisor had to start it again."""
    messages: int = 0
    bars: int = 0
    poison: int = 0
    objects: int = 0
    archive_lost: int = 0
    archive_doubled: int = 0
    live_wrong: int = 0
    """Points that are missing, too many, or not the latest version."""
    dead_letters_wrong: int = 0
    uncommitted: int = 0

    def wrong(self) -> int:
        return self.archive_lost + self.archive_doubled + self.live_wrong + self.dead_letters_wrong + self.uncommitted


class Leg:
    """A leg's process, started again whenever it ends by itself or is killed, until `stop`."""

    def __init__(self, name: str, environment: dict[str, str], log: Path, result: Result) -> None:
        self.name, self._environment, self._log, self._result = name, environment, log, result
        self._stopping = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "bytewax.run", f"dataflows.{self.name}", "-s", "1"]
            return subprocess.Popen(command, cwd=PROJECT, env=self._environment, stdout=log, stderr=log)

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            self._process.wait()
            if not self._stopping.wait(0.2):
                self._result.restarts[self.name] += 1
                self._process = self._start()

    def signal(self, number: int) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self) -> int:
        """Ends the leg as a supervisor does; its exit status."""
        self._stopping.set()
        self.signal(signal.SIGTERM)
        status = self._process.wait(60)
        self._thread.join()
        return status


class Traffic:
    """Writes messages until `stop`: new bars, revisions, exact duplicates and poison, from a generator by the seed."""

    def __init__(self, bootstrap: str, seed: int, per_second: int) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": 120_000,
                "linger.ms": 5,
            }
        )
        self._random, self._per_second = random.Random(f"traffic/{seed}"), per_second
        self._start = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0) - dt.timedelta(days=25)
        self._stamp = dt.datetime.now(dt.UTC)
        self._stopping = threading.Event()
        self._failed: list[str] = []
        self._bars: list[Bar] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _message(self) -> tuple[bytes, bytes]:
        chance = self._random.random()
        if chance < 0.02:
            return self._random.choice(SYMBOLS).encode(), self._random.choice(POISON)
        if chance < 0.06 and self._bars:  # the same message again, to the byte: it is a message of its own
            bar = self._random.choice(self._bars)
            return bar.symbol.encode(), encode(bar)
        if chance < 0.30 and self._bars:
            bar = self._random.choice(self._bars[-500:])  # a revision
        else:
            minute = len(self._bars) // len(SYMBOLS)
            bar = Bar(
                SYMBOLS[len(self._bars) % len(SYMBOLS)], "EGX", "1 Minute", self._start + minute * dt.timedelta(minutes=1),
                None, None, None, None, None, source="crash", is_final=True,
            )  # fmt: skip
        price = round(self._random.uniform(1, 200), 2)
        self._stamp = max(dt.datetime.now(dt.UTC), self._stamp + dt.timedelta(microseconds=1))
        bar = Bar(
            bar.symbol, bar.exchange, bar.interval, bar.datetime, price, price, price, price,
            self._random.randrange(1_000_000), self._stamp, "crash", True,
        )  # fmt: skip
        self._bars.append(bar)
        return bar.symbol.encode(), encode(bar)

    def _run(self) -> None:
        while not self._stopping.wait(0.05):
            for _ in range(self._per_second // 20):
                key, value = self._message()
                try:
                    self._producer.produce(TOPIC, value, key, on_delivery=self._delivered)
                except BufferError:
                    break
            self._producer.poll(0)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append(str(error))

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        left = self._producer.flush(120)
        if left or self._failed:
            raise AssertionError(f"the producer of the suite itself lost {left} messages, {self._failed[:3]}")


class Arena:
    """The servers, the proxies and the legs of one run."""

    def __init__(self, folder: Path, stack: ExitStack, result: Result) -> None:
        self.kafka = stack.enter_context(Kafka(folder / "kafka", proxied=True))
        self.influxdb = stack.enter_context(Influxdb(folder / "influxdb"))
        self.s3 = stack.enter_context(S3(folder / "s3"))
        toxics = stack.enter_context(Toxiproxy(folder / "toxiproxy")).client
        self.proxies: dict[str, Proxy] = {
            "kafka": toxics.create("kafka", self.kafka.proxied_address, self.kafka.proxy_address),
            "influxdb": toxics.create("influxdb", self.influxdb.address),
            "s3": toxics.create("s3", self.s3.address),
        }
        self.http = {name: HttpFaults(self.proxies[name].address) for name in ("influxdb", "s3")}
        for faults in self.http.values():
            stack.callback(faults.close)
        self.servers: dict[str, Server] = {"kafka": self.kafka, "influxdb": self.influxdb, "s3": self.s3}
        secrets = self.influxdb.environment()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("EGX_", "AWS_"))},
            "EGX_KAFKA__BOOTSTRAP_SERVERS": self.kafka.proxy_address,
            "EGX_KAFKA__CLIENT": json.dumps({"socket.timeout.ms": 3000, "reconnect.backoff.max.ms": 500}),
            "EGX_LIVE__STORE": "influxdb",
            "EGX_INFLUXDB__URL": f"http://{self.http['influxdb'].address}",
            "EGX_INFLUXDB__TOKEN": secrets["EGX_TEST_INFLUXDB_TOKEN"],
            "EGX_INFLUXDB__ORG": secrets["EGX_TEST_INFLUXDB_ORG"],
            "EGX_INFLUXDB__TIMEOUT_SECONDS": "3",
            "EGX_ARCHIVE__URL": f"s3://{BUCKET}/streaming/",
            "EGX_ARCHIVE__S3__ENDPOINT_URL": f"http://{self.http['s3'].address}",
            "EGX_ARCHIVE__BLOCK_MESSAGES": "500",
            "EGX_RETRY_SECONDS": "5",
            **{name: value for name, value in self.s3.environment().items() if name.startswith("AWS_")},
        }
        self.client = {"bootstrap.servers": self.kafka.address}
        self.legs = {name: Leg(name, environment, folder / f"{name}.log", result) for name in GROUPS}
        for leg in self.legs.values():
            stack.callback(leg.stop)

    def faults(self) -> dict[str, tuple[int, Callable[[random.Random], None], Callable[[], None]]]:
        """Name -> weight, what brings it about, and what mends it (after a while)."""

        def nothing() -> None:
            """It mends itself."""

        made: dict[str, tuple[int, Callable[[random.Random], None], Callable[[], None]]] = {}
        for name, leg in self.legs.items():
            made[f"{name} leg: kill -9"] = 8, lambda _, leg=leg: leg.signal(signal.SIGKILL), nothing  # type: ignore[misc]
            made[f"{name} leg: SIGTERM"] = 2, lambda _, leg=leg: leg.signal(signal.SIGTERM), nothing  # type: ignore[misc]
        for name, server in self.servers.items():
            weight = 1 if name == "kafka" else 2
            made[f"{name}: kill -9"] = weight, lambda _, server=server: server.kill(), server.restart_on_same_port  # type: ignore[misc]
        for name, proxy in self.proxies.items():
            made[f"{name}: cut off"] = 2, lambda _, proxy=proxy: proxy.disable(), proxy.enable  # type: ignore[misc]
            made[f"{name}: slow"] = 1, lambda r, proxy=proxy: proxy.latency(r.randrange(200, 1500)), proxy.heal  # type: ignore[misc]
            made[f"{name}: narrow"] = 1, lambda r, proxy=proxy: proxy.bandwidth(r.randrange(5, 50)), proxy.heal  # type: ignore[misc]
            made[f"{name}: reset"] = 1, lambda r, proxy=proxy: proxy.reset_peer(r.randrange(100)), proxy.heal  # type: ignore[misc]
            made[f"{name}: cut mid-answer"] = 2, lambda r, proxy=proxy: proxy.limit_data(r.randrange(1, 400)), proxy.heal  # type: ignore[misc]
            made[f"{name}: mute"] = 1, lambda _, proxy=proxy: proxy.timeout(0), proxy.heal  # type: ignore[misc]
        for name, http in self.http.items():
            for status in (500, 503, 429):
                after = 1 if status == 429 else None
                made[f"{name}: answers {status}"] = 1, lambda _, http=http, s=status, a=after: http.fail(s, a), http.heal  # type: ignore[misc]
        return made


def run(faults: int, seed: int, folder: Path, *, per_second: int = 600, say: Callable[[str], None] = lambda line: None) -> Result:
    """Runs the suite.

    :arg faults: how many.
    :arg seed: chooses the faults, their lengths and the messages; the moments also depend on the machine.
    :arg folder: for data and logs; should be empty.
    """
    started, chance, result = time.monotonic(), random.Random(f"faults/{seed}"), Result(seed)
    with ExitStack() as stack:
        arena = Arena(folder, stack, result)
        _wait(lambda: TOPIC in Consumer({**arena.client, "group.id": "look"}).list_topics(timeout=10).topics, 60, "topic")
        traffic = Traffic(arena.kafka.address, seed, per_second)
        kinds = arena.faults()
        for number in range(1, faults + 1):
            name = chance.choices(list(kinds), [weight for weight, _, _ in kinds.values()])[0]
            _, break_it, mend = kinds[name]
            lasting, pause = chance.uniform(0.1, 2.5), chance.uniform(0.1, 1.0)
            say(f"{number}/{faults} {name}")
            break_it(chance)
            time.sleep(lasting)
            mend()
            time.sleep(pause)
            result.faults[name] += 1
        traffic.stop()
        ends = _ends(arena.client)
        _wait(
            lambda: all(_committed(arena.client, group) == ends for group in GROUPS.values()), 180, "the legs to read everything"
        )
        statuses = {name: leg.stop() for name, leg in arena.legs.items()}
        if any(statuses.values()):
            raise AssertionError(f"a leg did not end cleanly: {statuses}")
        _count(arena, ends, result)
    result.seconds = time.monotonic() - started
    return result


def _wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.2)


def _ends(client: dict[str, str]) -> dict[int, int]:
    consumer = Consumer({**client, "group.id": "count"})
    try:
        partitions = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
        return {p: consumer.get_watermark_offsets(TopicPartition(TOPIC, p), timeout=10)[1] for p in partitions}
    finally:
        consumer.close()


def _committed(client: dict[str, str], group: str) -> dict[int, int]:
    consumer = Consumer({**client, "group.id": group})
    try:
        partitions = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
        return {
            t.partition: max(t.offset, 0) for t in consumer.committed([TopicPartition(TOPIC, p) for p in partitions], timeout=10)
        }
    finally:
        consumer.close()


def _count(arena: Arena, ends: dict[int, int], result: Result) -> None:
    """Compares archive, live store and dead letters with the topic, which is the truth."""
    now = dt.datetime.now(dt.UTC)
    lines: Counter[bytes] = Counter()
    latest: dict[tuple[str, float], Bar] = {}
    poison = set()
    for message in read(arena.client, TOPIC):
        result.messages += 1
        value = message.value() or b""
        bar = decode(value, now)
        if isinstance(bar, Rejected):
            poison.add((message.partition(), message.offset()))
        else:
            lines[canonical(value, bar, now)] += 1
            latest[bar.symbol, bar.datetime.timestamp()] = bar
    result.bars, result.poison = lines.total(), len(poison)
    if result.messages != sum(ends.values()):
        raise AssertionError(f"read {result.messages} messages of {sum(ends.values())}")

    archived = _archived(arena, result)
    result.archive_lost = (lines - archived).total()
    result.archive_doubled = (archived - lines).total()

    points = _points(arena)
    expected = {key: (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.is_final) for key, bar in latest.items()}
    result.live_wrong = sum(points.get(key) != values for key, values in expected.items()) + len(points.keys() - expected.keys())

    for leg in GROUPS:
        letters = {
            (int(named["partition"]), int(named["offset"]))
            for message in read(arena.client, DEAD_LETTERS)
            if (named := headers(message))["leg"] == leg
        }
        result.dead_letters_wrong += len(letters ^ poison)
    for group in GROUPS.values():
        committed = _committed(arena.client, group)
        result.uncommitted += sum(abs(end - committed[p]) for p, end in ends.items())


def _archived(arena: Arena, result: Result) -> Counter[bytes]:
    client = boto3.client(
        "s3",
        endpoint_url=arena.s3.url,
        aws_access_key_id=arena.s3.secrets["access_key"],
        aws_secret_access_key=arena.s3.secrets["secret_key"],
        region_name=arena.s3.region,
    )
    archived: Counter[bytes] = Counter()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="streaming/"):
        for item in page.get("Contents", ()):
            result.objects += 1
            archived.update(client.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read().splitlines())
    return archived


def _points(arena: Arena) -> dict[tuple[str, float], tuple[Any, ...]]:
    secrets = arena.influxdb.environment()
    with InfluxDBClient(arena.influxdb.url, secrets["EGX_TEST_INFLUXDB_TOKEN"], org=secrets["EGX_TEST_INFLUXDB_ORG"]) as client:
        rows = client.query_api().query_stream(
            'from(bucket: "market_data") |> range(start: -30d) |> filter(fn: (r) => r._measurement == "stock_price")'
            ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
        )
        names = ("open", "high", "low", "close", "volume", "is_final")
        return {(row["symbol"], row["_time"].timestamp()): tuple(row.values.get(name) for name in names) for row in rows}

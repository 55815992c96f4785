"""Rejected messages on real servers: listed with reason and origin, replayed once, by the leg that had rejected them."""

from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path

import pytest
from influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from rich.console import Console

from connectors.kafka import Record, Topic, Writer, ensure_topics
from dataflows.bar import Bar, encode
from dataflows.dead_letters import main, open_letters, read
from dataflows.settings import Kafka, Settings
from tests.servers.fixtures import InfluxdbServer, KafkaServer
from tests.servers.legs import run_to_the_end

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)


def bar(symbol: str, minutes_ago: int, volume: int | None = 5) -> Bar:
    start = NOW.replace(second=0) - dt.timedelta(minutes=minutes_ago)
    return Bar(symbol, "EGX", "1 Minute", start, 1.0, 2.0, 0.5, 1.5, volume, NOW, "test", True)


class Place:
    """A topic, a bucket and an archive of a test's own."""

    def __init__(self, kafka: KafkaServer, influxdb: InfluxdbServer, name: str, folder: Path) -> None:
        self.client = {"bootstrap.servers": kafka.bootstrap}
        self.topic, self.letters = name, f"{name}.dead_letter"
        ensure_topics(self.client, [Topic(self.topic, 2, 7), Topic(self.letters, 2, 7)])
        self.archive = folder / "archive"
        self.settings = {
            "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
            "KAFKA__TOPIC": self.topic,
            "KAFKA__DEAD_LETTER_TOPIC": self.letters,
            "LIVE__GROUP": f"{name}-live",
            "LIVE__STORE": "influxdb",
            "INFLUXDB__URL": influxdb.url,
            "INFLUXDB__ORG": influxdb.org,
            "INFLUXDB__TOKEN": influxdb.token,
            "INFLUXDB__BUCKET": name,
            "ARCHIVE__GROUP": f"{name}-archive",
            "ARCHIVE__URL": str(self.archive),
        }

    def write(self, *values: bytes) -> None:
        Writer(self.client, self.topic, stop=threading.Event()).write(Record(b"key", value) for value in values)

    def run(self, leg: str) -> str:
        return run_to_the_end(leg, self.settings, self.settings[f"{leg.upper()}__GROUP"], self.topic)

    def dead_letters(self, *arguments: str) -> tuple[int, str]:
        server = Kafka(bootstrap_servers=self.client["bootstrap.servers"], topic=self.topic, dead_letter_topic=self.letters)
        console = Console(record=True, width=200)
        status = main(arguments, Settings(kafka=server), console)
        return status, console.export_text()

    def archived(self) -> list[bytes]:
        return sorted(line for path in self.archive.rglob("*.json") for line in path.read_bytes().splitlines())


@pytest.fixture
def place(kafka: KafkaServer, influxdb: InfluxdbServer, unique_name: str, tmp_path: Path) -> Place:
    return Place(kafka, influxdb, unique_name, tmp_path)


def test_poison_is_listed_with_reason_and_origin_of_both_legs(place: Place) -> None:
    place.write(encode(bar("COMI", 3)), b"not json", encode(bar("ETEL", 3)), b'{"symbol":"../../etc"}')

    place.run("live")
    place.run("archive")

    letters = open_letters(read(place.client, place.letters))
    assert [(letter.value, sorted(letter.errors)) for letter in letters] == [
        (b"not json", ["archive", "live"]),
        (b'{"symbol":"../../etc"}', ["archive", "live"]),
    ]
    status, text = place.dead_letters()
    assert status == 1
    assert "2 open dead letters" in text
    assert "not JSON" in text
    assert all("{}[{}]@{}".format(*letter.origin) in text for letter in letters)
    assert len(place.archived()) == 2


def test_what_would_be_rejected_again_is_left_unless_asked_for(place: Place) -> None:
    place.write(b"not json")
    place.run("live")

    assert place.dead_letters("--replay") == (1, "replayed 0 dead letters, left 1 that are still rejected\n")
    assert place.dead_letters("--replay", "--all") == (0, "replayed 1 dead letters\n")
    assert place.dead_letters() == (0, "no open dead letters\n")


def test_a_point_that_influxdb_refused_is_replayed_once_after_a_fix_and_not_archived_twice(
    place: Place, influxdb: InfluxdbServer, unique_name: str
) -> None:
    refused, good = bar("COMI", 3), bar("ETEL", 3)
    with InfluxDBClient(influxdb.url, influxdb.token, org=influxdb.org) as client:
        client.buckets_api().create_bucket(bucket_name=unique_name, org=influxdb.org)
        conflict = f'stock_price,symbol=X volume="text" {int(NOW.timestamp() - 240)}'
        client.write_api(write_options=SYNCHRONOUS).write(unique_name, record=conflict, write_precision="s")
    place.write(encode(refused), encode(bar("ETEL", 3, volume=None)))

    place.run("live")
    place.run("archive")
    letters = open_letters(read(place.client, place.letters))
    assert [(letter.value, list(letter.errors)) for letter in letters] == [(encode(refused), ["live"])]
    assert "conflict" in letters[0].errors["live"]
    before = place.archived()

    place.settings["INFLUXDB__BUCKET"] = f"{unique_name}-mended"
    assert place.dead_letters("--replay") == (0, "replayed 1 dead letters\n")
    assert place.dead_letters("--replay") == (0, "replayed 0 dead letters\n")
    place.write(encode(good))  # behind the transaction's marker, so that there is an end to reach
    place.write(encode(good))
    place.run("live")
    place.run("archive")

    with InfluxDBClient(influxdb.url, influxdb.token, org=influxdb.org) as client:
        tables = client.query_api().query(f'from(bucket: "{unique_name}-mended") |> range(start: -1d)')
        points = {(r["symbol"], r.get_field()): r.get_value() for table in tables for r in table.records}
    assert points["COMI", "volume"] == 5
    assert place.archived() == sorted([*before, encode(good), encode(good)])

"""kill -9 of a leg in the middle of its work, against a broker in another process (this one): none lost, none doubled."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from connectors.kafka import InProcessBroker, Record, Writer
from dataflows.bar import encode
from dataflows.ingest import to_records
from dataflows.published import Published
from tests.dataflows.bars import NOW
from tests.dataflows.jobs import Folder, Job, minute_bars, record_row, row

TOPIC = "egx_market_data"
SYMBOLS = ("COMI", "ETEL", "SWDY", "PHDC", "ORAS", "HRHO", "OCDI")
BARS = minute_bars(SYMBOLS, 3_000)
KILLS = 4


@pytest.fixture
def broker(tmp_path: Path) -> InProcessBroker:
    """Holds all the bars, and a message that is none after each 500th."""
    broker = InProcessBroker()
    for topic in (TOPIC, f"{TOPIC}.dead_letter"):
        broker.create_topic(topic)
    stamped = Published(tmp_path / "state.sqlite", "", lambda ends: True).stamp(BARS, NOW.replace(year=2025))
    records = to_records(stamped)
    assert records[0].value == encode(stamped[0])
    for number in range(len(records), 0, -500):
        records.insert(number, Record(b"COMI", b"no bar"))
    Writer({"bootstrap.servers": broker.bootstrap_servers}, TOPIC, stop=threading.Event()).write(records)
    return broker


def ends(broker: InProcessBroker, group: str) -> tuple[dict[int, int], dict[int, int]]:
    """Partition -> the end of the topic, and where the group stands."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": group})
    partitions = [TopicPartition(TOPIC, partition) for partition in range(4)]
    topic = {p.partition: consumer.get_watermark_offsets(p, timeout=10)[1] for p in partitions}
    committed = {p.partition: max(0, p.offset) for p in consumer.committed(partitions, timeout=10)}
    consumer.close()
    assert sum(topic.values()) == len(BARS) + len(BARS) // 500
    return topic, committed


def done(broker: InProcessBroker, group: str) -> bool:
    topic, committed = ends(broker, group)
    return topic == committed


def finish(folder: Folder, leg: str, broker: InProcessBroker, group: str) -> Job:
    with folder.start(leg, "-s", "1") as job:
        job.wait_for(lambda: done(broker, group), "the group to stand at the topic's end")
        assert job.end() == 0, job.output
    return job


def test_the_archive_killed_again_and_again_holds_each_bar_once(tmp_path: Path, broker: InProcessBroker) -> None:
    folder = Folder(
        tmp_path,
        kafka={"bootstrap_servers": broker.bootstrap_servers, "batch_messages": 200},
        archive={"block_messages": 40, "parallel": 2},
    )
    root, chance = tmp_path / "data/archive/streaming", random.Random(7)

    def objects() -> int:
        return sum(1 for _ in root.rglob("*.json"))

    for _ in range(KILLS):
        more = objects() + chance.randint(1, 150)
        with folder.start("archive", "-s", chance.choice(["0", "1", "10"])) as job:
            job.wait_for(lambda job=job, more=more: objects() >= more, f"{more} objects")
            job.process.kill()
            job.process.wait()
            assert not done(broker, "egx-s3-writer"), "it had finished: nothing was killed in the middle"
    finish(folder, "archive", broker, "egx-s3-writer")
    assert sorted(map(record_row, folder.archived())) == sorted(map(row, BARS))
    assert not [key for key in folder.objects if not key.endswith(".json")]


def test_the_live_leg_killed_again_and_again_has_each_bar_once(tmp_path: Path, broker: InProcessBroker) -> None:
    folder = Folder(tmp_path, kafka={"bootstrap_servers": broker.bootstrap_servers, "batch_messages": 20})
    chance = random.Random(7)
    for _ in range(KILLS):
        more = folder.count_live() + chance.randint(1, 1_500)
        with folder.start("live", "-s", chance.choice(["0", "1", "10"])) as job:
            job.wait_for(lambda job=job, more=more: folder.count_live() >= more, f"{more} rows")
            job.process.kill()
            job.process.wait()
            assert not done(broker, "egx-influxdb-writer"), "it had finished: nothing was killed in the middle"
    finish(folder, "live", broker, "egx-influxdb-writer")
    assert sorted(folder.live()) == sorted(map(row, BARS))

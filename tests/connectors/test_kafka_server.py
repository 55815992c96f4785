"""Kafka in and out against a real broker."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewPartitions

from connectors import kafka as connector
from connectors.errors import PermanentError, TransientError
from connectors.kafka import KafkaSource, Record, Topic, Writer, ensure_topics
from tests.servers.fixtures import KafkaServer
from tests.servers.kafka import Kafka
from tests.servers.legs import committed


def write(client: connector.Client, topic: str, count: int) -> None:
    Writer(client, topic, stop=threading.Event()).write(Record(b"%d" % i, b"value %d" % i) for i in range(count))


def read(source: KafkaSource, count: int, seconds: float = 30) -> list[bytes]:
    """Drives the source's partition as Bytewax does, an epoch a batch, until `count` values have come and are committed."""
    partition = source.build_part("step", "0", None)
    values: list[bytes] = []
    deadline = time.monotonic() + seconds
    try:
        while len(values) < count:
            assert time.monotonic() < deadline, f"only {len(values)} of {count}"
            values += [m.value() or b"" for _, chunk in partition.next_batch() for m in chunk.messages]
            partition.snapshot()
        partition.next_batch()
    finally:
        partition.close()
    return values


def source(client: connector.Client, topic: str, group: str) -> KafkaSource:
    return KafkaSource(client, topic, group, stop=threading.Event())


def test_a_missing_topic_is_made_as_the_settings_say(kafka: KafkaServer, unique_name: str) -> None:
    client = {"bootstrap.servers": kafka.bootstrap}
    wanted = Topic(unique_name, 4, 7, config={"compression.type": "zstd"})

    ensure_topics(client, [wanted])
    ensure_topics(client, [wanted])

    admin = AdminClient(client)
    assert len(admin.list_topics(unique_name, timeout=10).topics[unique_name].partitions) == 4
    resource = ConfigResource(ResourceType.TOPIC, unique_name)
    config = admin.describe_configs([resource])[resource].result()
    assert (config["retention.ms"].value, config["compression.type"].value) == (str(7 * 86_400_000), "zstd")


def test_a_restart_goes_on_at_the_committed_offset_and_every_tool_sees_it(kafka: KafkaServer, unique_name: str) -> None:
    client = {"bootstrap.servers": kafka.bootstrap}
    ensure_topics(client, [Topic(unique_name, 4, 7)])
    write(client, unique_name, 500)

    first = read(source(client, unique_name, unique_name), 500)
    write(client, unique_name, 3)
    second = read(source(client, unique_name, unique_name), 3)

    assert sorted(first) == sorted(b"value %d" % i for i in range(500))
    assert sorted(second) == [b"value 0", b"value 1", b"value 2"]
    assert sum(committed(kafka.bootstrap, unique_name, unique_name).values()) == 503


def test_messages_that_were_deleted_unread_are_an_error_that_says_what_to_do(kafka: KafkaServer, unique_name: str) -> None:
    client = {"bootstrap.servers": kafka.bootstrap}
    ensure_topics(client, [Topic(unique_name, 1, 7)])
    write(client, unique_name, 10)
    read(source(client, unique_name, unique_name), 10)
    write(client, unique_name, 10)
    admin = AdminClient(client)
    for future in admin.delete_records([TopicPartition(unique_name, 0, 15)]).values():
        future.result(30)

    with pytest.raises(PermanentError, match=r"offset 10 of .*deleted unread.*--to-earliest"):
        read(source(client, unique_name, unique_name), 1)


def test_partitions_added_while_running_are_told_of_and_read_from_the_next_start(
    kafka: KafkaServer, unique_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connector, "METADATA_SECONDS", 0.0)
    client = {"bootstrap.servers": kafka.bootstrap}
    ensure_topics(client, [Topic(unique_name, 1, 7)])
    write(client, unique_name, 5)
    running = source(client, unique_name, unique_name).build_part("step", "0", None)
    seen: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(seen) < 5 and time.monotonic() < deadline:
        seen += [m.value() or b"" for _, chunk in running.next_batch() for m in chunk.messages]
        running.snapshot()
    admin = AdminClient(client)
    for future in admin.create_partitions([NewPartitions(unique_name, 3)]).values():
        future.result(30)
    with caplog.at_level(logging.INFO):
        while "now has 3 partitions" not in caplog.text and time.monotonic() < deadline:
            running.next_batch()
        running.close()
        write(client, unique_name, 60)
        values = read(source(client, unique_name, unique_name), 60)

    assert f"topic {unique_name} now has 3 partitions, group {unique_name} reads 1" in caplog.text
    assert f"group {unique_name} reads partitions [1, 2]" in caplog.text
    assert len(values) == 60


@pytest.mark.servers("kafka")
def test_tls_and_sasl_work_and_wrong_passwords_or_authorities_are_told_at_once(tmp_path: Path) -> None:
    with Kafka(tmp_path / "kafka", sasl_tls=True) as server:
        client = server.secure_client()
        ensure_topics(client, [Topic("secure", 1, 7)], timeout=60)
        write(client, "secure", 5)
        assert len(read(source(client, "secure", "group"), 5)) == 5

        with pytest.raises(PermanentError, match="EGX_KAFKA__PASSWORD"):
            ensure_topics({**client, "sasl.password": "wrong"}, [Topic("secure", 1, 7)], timeout=60)
        untrusting = {name: value for name, value in client.items() if name != "ssl.ca.location"}
        with pytest.raises(PermanentError, match=r"refused us.*kafka\.client"):
            ensure_topics(untrusting, [Topic("secure", 1, 7)], timeout=60)


def test_no_broker_at_the_address_is_one_line() -> None:
    with pytest.raises(TransientError, match=r"no Kafka broker answers at 127\.0\.0\.1:1 .*kafka\.bootstrap_servers"):
        ensure_topics({"bootstrap.servers": "127.0.0.1:1"}, [Topic("x", 1, 7)], timeout=2)

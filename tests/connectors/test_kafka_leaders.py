"""Leaders of partitions move between brokers while a topic is written and read: librdkafka's mock cluster of three brokers."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import confluent_kafka
import pytest

from connectors.kafka import KafkaSource, Record, Writer

TOPIC, PARTITIONS, BROKERS = b"moving", 4, 3


class MockCluster:
    """librdkafka's own test cluster, through its C API, which confluent_kafka does not wrap."""

    def __init__(self) -> None:
        bundled = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
        self._library = ctypes.CDLL(str(next(bundled.glob("librdkafka*"))))
        self._library.rd_kafka_conf_new.restype = ctypes.c_void_p
        self._library.rd_kafka_new.restype = ctypes.c_void_p
        self._library.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        self._library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
        self._library.rd_kafka_mock_cluster_new.argtypes = [ctypes.c_void_p, ctypes.c_int]
        self._library.rd_kafka_mock_topic_create.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
        self._library.rd_kafka_mock_partition_set_leader.argtypes = [
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32,
        ]  # fmt: skip
        self._library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        self._library.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
        self._library.rd_kafka_mock_cluster_destroy.argtypes = [ctypes.c_void_p]
        self._library.rd_kafka_destroy.argtypes = [ctypes.c_void_p]
        self._client = self._library.rd_kafka_new(0, self._library.rd_kafka_conf_new(), ctypes.create_string_buffer(512), 512)
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, BROKERS)
        assert self._library.rd_kafka_mock_topic_create(self._cluster, TOPIC, PARTITIONS, BROKERS) == 0
        self.bootstrap: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def move(self, partition: int, broker: int) -> None:
        assert self._library.rd_kafka_mock_partition_set_leader(self._cluster, TOPIC, partition, broker) == 0

    def close(self) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    made = MockCluster()
    yield made
    made.close()


def test_leaders_that_move_lose_and_double_nothing(cluster: MockCluster) -> None:
    stop = threading.Event()
    client = {"bootstrap.servers": cluster.bootstrap, "topic.metadata.refresh.interval.ms": 1000}
    writer = Writer(client, TOPIC.decode(), stop=stop, retry_seconds=30)
    part = KafkaSource(client, TOPIC.decode(), "group", stop=stop, batch_messages=50).build_part("step", "0", None)
    expected = [b"%d" % number for number in range(1_200)]
    seen: list[bytes] = []

    def read() -> None:
        seen.extend(message.value() or b"" for _, chunk in part.next_batch() for message in chunk.messages)
        part.snapshot()

    for round_, first in enumerate(range(0, len(expected), 100)):
        for partition in range(PARTITIONS):
            cluster.move(partition, 1 + (round_ + partition) % BROKERS)
        writer.write(Record(value, value) for value in expected[first : first + 100])
        read()
    deadline = time.monotonic() + 30
    while len(seen) < len(expected) and time.monotonic() < deadline:
        read()
    part.close()

    assert sorted(seen) == sorted(expected)

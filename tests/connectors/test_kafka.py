from __future__ import annotations

import logging
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from connectors import kafka
from connectors.errors import PermanentError, Stopped, TransientError
from connectors.kafka import InProcessBroker, KafkaSink, KafkaSource, Record, Writer
from tests.dataflows.jobs import wait_for


@pytest.fixture(scope="module")
def broker() -> InProcessBroker:
    return InProcessBroker()


@pytest.fixture
def client(broker: InProcessBroker) -> dict[str, Any]:
    return {"bootstrap.servers": broker.bootstrap_servers}


@pytest.fixture
def topic(broker: InProcessBroker) -> str:
    name = f"t{uuid.uuid4().hex}"
    broker.create_topic(name)
    return name


@pytest.fixture
def nowhere() -> dict[str, Any]:
    """A client of a broker that is not there."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return {"bootstrap.servers": f"127.0.0.1:{closed.getsockname()[1]}"}


class Told:
    """A `Reader` that remembers."""

    def __init__(self) -> None:
        self.positions: dict[int, int] = {}
        self.offsets: dict[int, int] = {}
        self.lag: int | None = None

    def read(self, group: str, positions: Mapping[int, int], lag: int) -> None:
        self.positions, self.lag = dict(positions), lag

    def committed(self, group: str, offsets: Mapping[int, int]) -> None:
        self.offsets.update(offsets)


def produce(client: dict[str, Any], topic: str, values: Mapping[int, list[bytes]], **options: Any) -> None:
    producer = Producer({**client, **options})
    for partition, of_partition in values.items():
        for value in of_partition:
            producer.produce(topic, value, partition=partition)
    assert producer.flush(30) == 0


def source(client: dict[str, Any], topic: str, group: str = "g", **options: Any) -> KafkaSource:
    return KafkaSource(client, topic, group, **{"stop": threading.Event(), **options})


@pytest.fixture
def build() -> Iterator[Callable[..., Any]]:
    """Builds a reader of a source, and closes it after the test."""
    built: list[Any] = []

    def build(source: KafkaSource, reader: str = "0") -> Any:
        built.append(source.build_part("", reader, None))
        return built[-1]

    yield build
    for part in built:
        part._consumer.close()


def read(part: Any, count: int) -> dict[int, list[bytes]]:
    """Partition -> the values of the next messages, `count` in all."""
    values: dict[int, list[bytes]] = {}

    def enough() -> bool:
        for key, chunk in part.next_batch():
            assert key == part._key
            values.setdefault(chunk.partition, []).extend(message.value() for message in chunk.messages)
        return sum(map(len, values.values())) >= count

    wait_for(enough, f"{count} messages")
    return values


def committed(client: dict[str, Any], topic: str, group: str = "g") -> dict[int, int]:
    consumer = Consumer({**client, "group.id": group})
    offsets = consumer.committed([TopicPartition(topic, partition) for partition in range(4)], timeout=10)
    consumer.close()
    return {offset.partition: offset.offset for offset in offsets if offset.offset >= 0}


# Reading


def test_a_new_group_starts_at_the_oldest_message_in_order(client: dict[str, Any], topic: str, build: Callable[..., Any]) -> None:
    values = {0: [b"a", b"b", b"c"], 2: [b"d"]}
    produce(client, topic, values)
    told = Told()
    assert read(build(source(client, topic, reader=told)), 4) == values


def test_offsets_are_committed_only_at_the_call_after_the_epochs_end(
    client: dict[str, Any], topic: str, build: Callable[..., Any]
) -> None:
    produce(client, topic, {0: [b"a", b"b"]})
    told = Told()
    part = build(source(client, topic, reader=told, batch_messages=1))
    read(part, 1)
    part.snapshot()
    assert (committed(client, topic), told.offsets) == ({}, {})
    part.next_batch()
    assert committed(client, topic)[0] == told.offsets[0] == 1
    wait_for(lambda: part.next_batch() == [] and told.positions.get(0) == 2, "the second message")
    assert committed(client, topic)[0] == 1
    part.snapshot()
    part.next_batch()
    assert committed(client, topic)[0] == told.offsets[0] == 2


def test_a_restart_goes_on_where_the_group_stands(client: dict[str, Any], topic: str, build: Callable[..., Any]) -> None:
    produce(client, topic, {1: [b"a", b"b", b"c"]})
    part = build(source(client, topic, batch_messages=1))
    assert read(part, 2) == {1: [b"a", b"b"]}
    part.snapshot()
    part.next_batch()
    assert read(build(source(client, topic)), 1) == {1: [b"c"]}
    assert read(build(source(client, topic, group="another")), 3) == {1: [b"a", b"b", b"c"]}


def test_nothing_more_is_handed_out_while_an_epoch_cannot_be_committed(
    client: dict[str, Any], topic: str, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(client, topic, {0: [b"a", b"b"]})
    part = build(source(client, topic, batch_messages=1))
    read(part, 1)
    part.snapshot()
    real, failures = part._consumer, [KafkaException(KafkaError(KafkaError.COORDINATOR_NOT_AVAILABLE))] * 3

    class Failing:
        def commit(self, **options: Any) -> Any:
            if failures:
                raise failures.pop()
            return real.commit(**options)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    part._consumer = Failing()
    for left in (2, 1, 0):
        assert part.next_batch() == []
        assert len(failures) == left
        part.snapshot()
        assert committed(client, topic) == {}
    assert read(part, 1) == {0: [b"b"]}
    assert committed(client, topic)[0] == 1


def test_readers_share_the_partitions(client: dict[str, Any], topic: str, build: Callable[..., Any]) -> None:
    values = {partition: [b"%d" % partition] for partition in range(4)}
    produce(client, topic, values)
    shared = source(client, topic, readers=3)
    assert shared.list_parts() == ["0", "1", "2"]
    assert read(build(shared, "0"), 2) == {0: [b"0"], 3: [b"3"]}
    assert read(build(shared, "1"), 1) == {1: [b"1"]}
    assert read(build(shared, "2"), 1) == {2: [b"2"]}


def test_it_tells_positions_and_lag(client: dict[str, Any], topic: str, build: Callable[..., Any]) -> None:
    produce(client, topic, {0: [b"a"] * 5})
    told = Told()
    part = build(source(client, topic, reader=told, batch_messages=1))
    read(part, 2)
    assert (told.positions[0], told.lag[0]) == (2, 3)
    read(part, 3)
    assert (told.positions[0], told.lag[0]) == (5, 0)


def test_it_ends_where_it_is_told_and_commits_that_once_the_flow_is_done(
    client: dict[str, Any], topic: str, build: Callable[..., Any]
) -> None:
    produce(client, topic, {0: [b"a"] * 3, 1: [b"b"] * 2})
    ends: dict[int, int] | None = None
    part = build(source(client, topic, until=lambda: ends))
    read(part, 5)
    assert part.next_batch() == []
    ends = {0: 3, 1: 2}
    with pytest.raises(StopIteration):
        part.next_batch()
    part.snapshot()
    part.close()
    assert committed(client, topic) == {}
    kafka.commit_ended()
    assert {partition: offset for partition, offset in committed(client, topic).items() if offset} == ends


def test_it_goes_on_past_what_is_no_message_at_the_end_of_a_partition(
    client: dict[str, Any], topic: str, build: Callable[..., Any]
) -> None:
    """As after a transaction, whose mark takes an offset that is never handed out: the client says only where the end is."""
    produce(client, topic, {0: [b"a"] * 2})
    told = Told()
    part = build(source(client, topic, reader=told, until=lambda: {0: 2}))
    real, end = part._consumer, Message(topic=topic, partition=0, offset=2, error=KafkaError(KafkaError._PARTITION_EOF))

    class MarksOnly:
        def consume(self, count: int, timeout: float) -> list[Message]:
            return [end]

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    part._consumer = MarksOnly()
    assert part.next_batch() == []
    assert told.positions == {0: 2}
    part.snapshot()
    with pytest.raises(StopIteration):
        part.next_batch()
    assert committed(client, topic) == {0: 2}


def test_an_error_of_a_partition_that_does_not_pass_ends_it(
    client: dict[str, Any], topic: str, build: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    class Unreadable:
        """A consumer for whom reading partition 2 gives an error, or, every other time, nothing."""

        def __init__(self, consumer: Consumer) -> None:
            self._consumer, self._failed = consumer, False

        def __getattr__(self, name: str) -> Any:
            return getattr(self._consumer, name)

        def consume(self, *_: object) -> list[Any]:
            self._failed = not self._failed
            error = KafkaError(KafkaError._BAD_MSG, "bad checksum")
            return [Message(topic=topic, partition=2, offset=0, error=error)] if self._failed else []

    part = build(source(client, topic, retry_seconds=0.5))
    part._consumer = Unreadable(part._consumer)
    part._next[2] = 7
    part.next_batch()
    assert "bad checksum" in caplog.text
    said = vars(caplog.records[-1])
    assert (said["group"], said["topic"], said["partition"], said["offset"]) == ("g", topic, 2, 7)
    with pytest.raises(TransientError, match=rf"cannot read {topic}\[2\].*bad checksum"):
        wait_for(lambda: any(part.next_batch()), "what should fail, and not be read")


@pytest.mark.parametrize("value", [b"a", b""])
def test_where_it_may_wait_a_call_ends_with_the_first_message(
    client: dict[str, Any], topic: str, build: Callable[..., Any], value: bytes
) -> None:
    part = build(source(client, topic, wait_seconds=0.05))
    assert part.next_batch() == []
    assert part.next_awake() is None
    part = build(source(client, topic, wait_seconds=30))
    while len(part._next) < 4:
        assert part.next_batch() == []  # what comes first are the ends of the four partitions
    threading.Timer(0.1, produce, (client, topic, {1: [value]})).start()
    ((_, chunk),) = part.next_batch()
    assert [message.value() or b"" for message in chunk.messages] == [value]


def test_stop_ends_it_at_once(client: dict[str, Any], topic: str, build: Callable[..., Any]) -> None:
    stop = threading.Event()
    part = build(source(client, topic, stop=stop))
    part.next_batch()
    stop.set()
    with pytest.raises(StopIteration):
        part.next_batch()


def test_an_offset_that_the_broker_no_longer_has_is_an_error_that_says_what_to_do(
    client: dict[str, Any], topic: str, build: Callable[..., Any]
) -> None:
    produce(client, topic, {2: [b"a"]})
    part = build(source(client, topic))
    read(part, 1)
    part.snapshot()
    part.next_batch()
    # The in-process broker holds about 5 MB of a partition.
    produce(client, topic, {2: [b"x" * 900_000] * 12}, **{"compression.type": "none"})

    def until_it_fails() -> None:
        part = build(source(client, topic))
        wait_for(lambda: any(part.next_batch()), "what should fail, and not be read")

    with pytest.raises(PermanentError) as caught:
        until_it_fails()
    for says in (f"group g stands at offset 1 of {topic}[2]", "deleted unread", f"--topic {topic}:2 --execute --to-earliest"):
        assert says in str(caught.value)
    assert committed(client, topic)[2] == 1


def test_a_topic_that_is_not_there_is_named(client: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match=r"no-such-topic.*kafka\.topic"):
        source({**client, "allow.auto.create.topics": False}, "no-such-topic").build_part("", "0", None)


@pytest.mark.parametrize(
    "reach",
    [
        lambda client: kafka.ensure_topics(client, [kafka.Topic("t", 1, 1)], timeout=0.3),
        lambda client: kafka.cluster_id(client, timeout=0.3),
        lambda client: kafka.end_offsets(client, "t", timeout=0.3),
    ],
)
def test_no_broker_at_the_address_is_transient_and_names_the_setting(nowhere: dict[str, Any], reach: Callable[..., None]) -> None:
    with pytest.raises(TransientError, match=rf"no Kafka broker answers at {nowhere['bootstrap.servers']}.*bootstrap_servers"):
        reach(nowhere)


@pytest.mark.parametrize(
    "make",
    [
        lambda client: kafka.cluster_id(client),
        lambda client: kafka.end_offsets(client, "t"),
        lambda client: source(client, "t").build_part("", "0", None),
        lambda client: Writer(client, "t", stop=threading.Event()),
    ],
)
def test_a_property_that_no_client_takes_is_named(client: dict[str, Any], make: Callable[..., object]) -> None:
    with pytest.raises(PermanentError, match=r'"no\.such\.property".*kafka\.client'):
        make({**client, "no.such.property": 1})


def test_end_offsets_are_those_of_the_next_messages(client: dict[str, Any], topic: str) -> None:
    produce(client, topic, {0: [b"a"] * 3, 3: [b"b"]})
    assert kafka.end_offsets(client, topic) == {0: 3, 1: 0, 2: 0, 3: 1}


# Writing


def all_of(client: dict[str, Any], topic: str, count: int) -> list[Message]:
    consumer = Consumer({**client, "group.id": "all"})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
    messages: list[Message] = []
    wait_for(lambda: bool(messages.extend(consumer.consume(100, 0.05))) or len(messages) >= count, f"{count} messages")
    consumer.close()
    return messages


def test_records_are_there_when_write_returns_with_key_and_headers(client: dict[str, Any], topic: str) -> None:
    records = [Record(b"k%d" % (number % 5), b"%d" % number, [("error", b"why"), ("leg", "live")]) for number in range(50)]
    ends = Writer(client, topic, stop=threading.Event()).write(records)
    assert ends == {partition: end for partition, end in kafka.end_offsets(client, topic).items() if end}
    assert sum(ends.values()) == 50
    messages = all_of(client, topic, 50)
    for key in {record.key for record in records}:
        mine = [message for message in messages if message.key() == key]
        assert [message.value() for message in mine] == [record.value for record in records if record.key == key]
        assert len({message.partition() for message in mine}) == 1
    assert {str(message.headers()) for message in messages} == {str([("error", b"why"), ("leg", b"live")])}


def test_a_write_tells_only_of_its_own_partitions(client: dict[str, Any], topic: str) -> None:
    writer = Writer(client, topic, stop=threading.Event())
    first = writer.write([Record(b"a", b"1")])
    assert len(first) == 1
    assert writer.write([]) == {}
    assert writer.write([Record(b"a", b"2")]) == {partition: end + 1 for partition, end in first.items()}


def test_a_record_that_the_broker_will_not_take_is_permanent(client: dict[str, Any], topic: str) -> None:
    writer = Writer({**client, "message.max.bytes": 2_000}, topic, stop=threading.Event())
    with pytest.raises(PermanentError, match=f"did not take a message for {topic}.*topic's settings"):
        writer.write([Record(b"a", b"x" * 5_000)])


def test_records_that_nobody_takes_are_transient_when_time_is_up(nowhere: dict[str, Any]) -> None:
    with pytest.raises(TransientError, match=r"did not take a message for t: .*check that the broker runs"):
        Writer(nowhere, "t", stop=threading.Event(), retry_seconds=0.3).write([Record(b"a", b"x")] * 3)


def test_asked_to_end_it_gives_up_after_a_while(nowhere: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    stop.set()
    ticks = iter(range(0, 1_000_000, 3))
    monkeypatch.setattr("connectors.kafka.time.monotonic", lambda: float(next(ticks)))
    with pytest.raises(Stopped, match="did not take"):
        Writer(nowhere, "t", stop=stop).write([Record(b"a", b"x")])


def test_asked_to_end_it_gives_up_while_it_waits_for_space(nowhere: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    stop.set()
    ticks = iter(range(0, 1_000_000, 3))
    monkeypatch.setattr("connectors.kafka.time.monotonic", lambda: float(next(ticks)))
    writer = Writer({**nowhere, "queue.buffering.max.messages": 1}, "t", stop=stop)
    with pytest.raises(Stopped, match="did not take 1 messages"):
        writer.send([Record(b"a", b"x")] * 2)


def test_the_sink_writes_what_it_is_given_and_tells_how_much(client: dict[str, Any], topic: str) -> None:
    told: list[tuple[int, Mapping[int, int]]] = []
    sink = KafkaSink(client, topic, stop=threading.Event(), on_written=lambda count, ends: told.append((count, ends)))
    assert sink.list_parts() == ["0"]
    assert sink.part_fn("any") == 0
    sink.build_part("", "0", None).write_batch([[Record(b"a", b"1"), Record(b"a", b"2")], [], [Record(b"a", b"3")]])
    (count, ends), *rest = told
    assert (count, sum(ends.values()), rest) == (3, 3, [])


def test_a_large_batch_is_told_of_with_the_next_one_or_at_the_end_of_the_epoch(client: dict[str, Any], topic: str) -> None:
    told: list[int] = []
    sink = KafkaSink(client, topic, stop=threading.Event(), ahead_from=3, on_written=lambda count, ends: told.append(count))
    partition = sink.build_part("", "0", None)
    partition.write_batch([[Record(b"a", b"1"), Record(b"a", b"2")], [Record(b"a", b"3")]])
    assert told == []
    partition.write_batch([[Record(b"a", b"4")]])
    assert told == [3, 1]
    partition.write_batch([[Record(b"a", b"%d" % number) for number in range(4)]])
    partition.snapshot()
    partition.snapshot()
    assert told == [3, 1, 4]
    assert len(all_of(client, topic, 8)) == 8


@pytest.mark.parametrize("finish", [lambda partition: partition.snapshot(), lambda partition: partition.write_batch([])])
def test_a_large_batch_that_nobody_takes_fails_later(nowhere: dict[str, Any], finish: Callable[[Any], None]) -> None:
    sink = KafkaSink(nowhere, "t", stop=threading.Event(), retry_seconds=0.3, ahead_from=1)
    partition = sink.build_part("", "0", None)
    partition.write_batch([[Record(b"a", b"x")]])
    with pytest.raises(TransientError, match="did not take a message for t"):
        finish(partition)


def test_missing_topics_are_reported_when_they_are_there_already(
    client: dict[str, Any], topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        kafka.ensure_topics(client, [kafka.Topic(topic, 4, 7)])
    assert "made topic" not in caplog.text


def test_headers_are_text_whatever_they_hold() -> None:
    message = Message(headers=[("error", b"\xff why"), ("leg", b"live"), ("none", None)])
    assert kafka.headers(message) == {"error": "\ufffd why", "leg": "live"}
    assert kafka.headers(Message()) == {}

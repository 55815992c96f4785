"""The promise: nothing lost, nothing doubled, whatever dies when.

A topic of several partitions with revisions, poison and foreign messages is read by the archive and the live leg, each killed
at random points of its own and started again. Then the archive holds each good message exactly once, the live store the
last version of each bar, the dead letters each bad message, and the groups stand at the topic's end.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import re
import sqlite3
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from hypothesis import event, given, settings
from hypothesis import strategies as st

from connectors import kafka
from connectors.kafka import Chunk, InProcessBroker, KafkaSource
from connectors.objects import ObjectSink
from connectors.sqlite import SqliteSink
from dataflows import dead_letters
from dataflows.archive import archive, to_pieces
from dataflows.live import TABLE, live, to_rows
from dataflows.messages import decode
from dataflows.process import Run
from dataflows.progress import Handover, Progress
from dataflows.settings import Archive, Kafka, Settings
from tests.dataflows.bars import NOW, message

KEY = re.compile(r"date=(\d{4}-\d\d-\d\d)/symbol=([A-Z0-9._]+)/(\d{12})-(\d+)-(\d{18})\.json")
SYMBOLS = ("A", "B", "..")
TIMES = ("2025-12-07T08:00:00.000001Z", "2025-12-07T23:59:59.999999Z", "2025-12-08T00:00:00Z", "2025-12-08T03:00:00+02:00")

# A topic


@dataclass
class Topic:
    """What was produced: partition -> (key, value) in order; each value names its place in the unknown field `n`."""

    partitions: list[list[tuple[bytes, bytes]]]

    def good(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, records in enumerate(self.partitions):
            for _, value in records:
                with suppress(ValueError):
                    yield number, json.loads(value)

    def lines(self) -> set[str]:
        """What identifies each good message."""
        return {fields["n"] for _, fields in self.good()}

    def poison(self) -> set[bytes]:
        return {value for records in self.partitions for _, value in records if not value.startswith(b"{")}

    def latest(self) -> dict[tuple[str, str], float]:
        """(symbol, start) -> the close of its last version."""
        return {(f["symbol"], f["datetime"]): f["close"] for _, f in self.good()}

    def ends(self) -> dict[int, int]:
        return {number: len(records) for number, records in enumerate(self.partitions) if records}


@st.composite
def topics(draw: st.DrawFn, *, partitions: int = 3, longest: int = 24) -> Topic:
    made: list[list[tuple[bytes, bytes]]] = []
    for number in range(partitions):
        records = []
        # A symbol stands in one partition, as with a real topic.
        mine = [symbol for at, symbol in enumerate(SYMBOLS) if at % partitions == number] or [f"P{number}"]
        for offset in range(draw(st.integers(0, longest))):
            place = f"{number}-{offset}"
            kind = draw(st.sampled_from(["bar"] * 8 + ["poison"]))
            symbol = draw(st.sampled_from(mine))
            if kind == "poison":
                records.append((symbol.encode(), f"poison {place}".encode()))
                continue
            records.append(
                (
                    symbol.encode(),
                    message(
                        symbol=symbol,
                        datetime=draw(st.sampled_from(["2025-12-07T08:00:00Z", "2025-12-07T08:01:00Z"])),
                        close=float(len(records) + 1),
                        ingestion_timestamp=draw(st.sampled_from([*TIMES, None])),
                        n=place,
                    ),
                )
            )
        made.append(records)
    return Topic(made)


def check_archive(topic: Topic, objects: Mapping[str, bytes]) -> None:
    """Each good message in one object, once, and that in the right folder, in order, under its first line's name."""
    found = Counter[str]()
    for key, body in objects.items():
        parts = KEY.fullmatch(key)
        assert parts is not None, key
        date, symbol, time, partition, offset = parts.groups()
        lines = [json.loads(line) for line in body.decode().splitlines()]
        places = [tuple(map(int, line["n"].split("-"))) for line in lines]
        assert places == sorted(places)
        assert places[0] == (int(partition), int(offset))
        assert {place[0] for place in places} == {int(partition)}
        assert {line["symbol"] for line in lines} == {symbol}
        assert {line["ingestion_timestamp"][:10] for line in lines} == {date}
        digits = re.sub(r"\D", "", lines[0]["ingestion_timestamp"][11:].removesuffix("Z"))
        assert time == digits.ljust(12, "0")
        found.update(line["n"] for line in lines)
    assert found == Counter(topic.lines())


def check_live(topic: Topic, path: Path) -> None:
    rows = sqlite3.connect(path).execute("SELECT symbol, datetime, close FROM stock_price").fetchall() if path.exists() else []
    assert {(symbol, start.replace("+00:00", "Z")): close for symbol, start, close in rows} == topic.latest()
    assert len(rows) == len(topic.latest())


# The partitions of inputs and outputs, driven by hand


class Crash(BaseException):
    """The process dies here; nothing of it runs any more."""


@dataclass
class Objects:
    """An object store that survives; it dies before or after its nth put."""

    held: dict[str, bytes] = field(default_factory=dict)
    dies_at: int | None = None
    dies_after: bool = False
    puts: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, key: str, body: bytes) -> None:
        with self.lock:
            self.puts += 1
            if self.dies_at is not None and (self.puts > self.dies_at or (self.puts == self.dies_at and not self.dies_after)):
                raise Crash
            self.held[key] = body
            if self.puts == self.dies_at:
                raise Crash


@dataclass
class Input:
    """What a group reads, as `KafkaSource` promises it: its offsets move when the epoch in which it read is done."""

    topic: Topic
    messages: list[list[Message]]
    committed: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, topic: Topic) -> Input:
        return cls(
            topic,
            [
                [
                    Message(
                        topic="t", partition=number, offset=offset, key=key, value=value, timestamp=(1, 1765100000000 + offset)
                    )
                    for offset, (key, value) in enumerate(records)
                ]
                for number, records in enumerate(topic.partitions)
            ],
        )

    def finished(self) -> bool:
        return self.committed == self.topic.ends()


Write = Callable[[Chunk], None]


def drive(read: Input, write: Write, end_epoch: Callable[[], None], steps: Sequence[tuple[int, int] | None]) -> None:
    """One life of a process: (partition, how many) are read and written, None ends the epoch, which is committed at the next
    read; at the end of the steps it dies."""
    position, done = dict(read.committed), dict(read.committed)
    for step in steps:
        if step is None:
            end_epoch()
            done = dict(position)
            continue
        read.committed = done
        partition, count = step[0] % len(read.messages), step[1]
        start = position.get(partition, 0)
        if chunk := read.messages[partition][start : start + count]:
            position[partition] = start + len(chunk)
            write(Chunk("t", partition, chunk))


READS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=1, max_size=4)
STEPS = st.builds(
    lambda epochs, left: [step for epoch in epochs for step in (*epoch, None)] + left,
    st.lists(READS, max_size=4),
    st.just([]) | READS,
)
"""Epochs, each ended, and at times one that is not."""


def to_the_end(topic: Topic, count: int, each: int) -> list[tuple[int, int] | None]:
    """Steps that read everything, and are committed."""
    steps: list[tuple[int, int] | None] = []
    for at in range(1, 30):
        steps += [(partition, count) for partition in range(len(topic.partitions))]
        if at % each == 0:
            steps.append(None)
    return [*steps, None, (0, 1)]


@given(
    topic=topics(),
    block_messages=st.sampled_from([1, 2, 3, 4, 7, 65536]),
    lives=st.lists(st.tuples(STEPS, st.none() | st.integers(1, 12), st.booleans()), min_size=1, max_size=5),
    parallel=st.integers(1, 3),
    last=st.tuples(st.integers(1, 30), st.integers(1, 9)),
)
@settings(max_examples=max(settings.default.max_examples, 200))
def test_the_archive_holds_each_message_once_wherever_it_was_killed(
    topic: Topic,
    block_messages: int,
    lives: list[tuple[list[tuple[int, int] | None], int | None, bool]],
    parallel: int,
    last: tuple[int, int],
) -> None:
    read = Input.of(topic)
    objects: dict[str, bytes] = {}
    pieces = to_pieces(block_messages)

    def live_once(steps: Sequence[tuple[int, int] | None], dies_at: int | None, dies_after: bool) -> None:
        store = Objects(objects, dies_at, dies_after)
        sink = ObjectSink(lambda: store, stop=threading.Event(), parallel=parallel).build_part("", "0", None)
        try:
            drive(read, lambda chunk: sink.write_batch([pieces(decode(chunk, "archive", NOW))]), sink.snapshot, steps)
        except Crash:
            event("died while putting")
        finally:
            sink.close()
        archived = {json.loads(line)["n"] for body in objects.values() for line in body.splitlines()}
        due = {n for n in topic.lines() if int(n.split("-")[1]) < read.committed.get(int(n.split("-")[0]), 0)}
        assert due <= archived, "committed, and not in the archive"

    for life in lives:
        live_once(*life)
    live_once(to_the_end(topic, *last), None, False)
    check_archive(topic, objects)
    assert read.finished()


@given(topic=topics(), lives=st.lists(STEPS, max_size=4))
@settings(max_examples=min(settings.default.max_examples // 2, 300))
def test_the_live_store_holds_the_last_version_wherever_it_was_killed(
    topic: Topic, lives: list[list[tuple[int, int] | None]]
) -> None:
    read = Input.of(topic)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "live.sqlite"
        for steps in [*lives, to_the_end(topic, 5, 3)]:
            sink = SqliteSink(path, TABLE, stop=threading.Event()).build_part("", "0", None)
            write = sink.write_batch
            drive(read, lambda chunk, write=write: write([to_rows(decode(chunk, "live", NOW))]), sink.snapshot, steps)
        check_live(topic, path)
    assert read.finished()


# The real inputs, outputs and dataflows, over a real client and the in-process broker


@pytest.fixture(scope="module")
def broker() -> InProcessBroker:
    return InProcessBroker()


def produce(broker: InProcessBroker, topic: Topic) -> str:
    """The name of a new topic of the broker that holds it."""
    name = f"t{uuid.uuid4().hex}"
    broker.create_topic(name)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for number, records in enumerate(topic.partitions):
        for key, value in records:
            producer.produce(name, value, key, partition=number)
    assert producer.flush(30) == 0
    return name


def committed(broker: InProcessBroker, name: str, group: str) -> dict[int, int]:
    """Where a group stands, as the broker says: partition -> offset, those at 0 left out."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": group})
    offsets = consumer.committed([TopicPartition(name, partition) for partition in range(4)], timeout=10)
    consumer.close()
    return {offset.partition: offset.offset for offset in offsets if offset.offset > 0}


def with_deadline(seconds: float = 30) -> Iterator[None]:
    """Goes round until left, and fails when that takes too long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
    pytest.fail(f"not done in {seconds:g} s")


@given(topic=topics(longest=12), lives=st.lists(st.lists(st.sampled_from(["read", "read", "end epoch"]), max_size=8), max_size=3))
@settings(max_examples=min(settings.default.max_examples // 4, 200))
def test_a_kafka_input_replays_at_most_the_epoch_that_was_not_done_and_leaves_nothing_out(
    broker: InProcessBroker, topic: Topic, lives: list[list[str]]
) -> None:
    name = produce(broker, topic)
    client = {"bootstrap.servers": broker.bootstrap_servers}
    source = KafkaSource(client, name, "g", stop=threading.Event(), batch_messages=3)
    done: dict[int, int] = {}
    """What the input must have committed by now."""
    for number, steps in enumerate([*lives, None]):
        part = source.build_part("", "0", None)
        position, ended = dict(done), None
        script = iter(steps) if steps is not None else itertools.cycle(["read", "end epoch"])
        for step in script:
            if steps is None and done == topic.ends():
                break
            if step == "end epoch":
                part.snapshot()
                ended = dict(position)
                continue
            for _ in with_deadline():
                chunks = part.next_batch()
                if ended is not None:
                    done, ended = ended, None
                for _, (_, partition, messages) in chunks:
                    start = position.get(partition, 0)
                    position[partition] = start + len(messages)
                    assert [m.offset() for m in messages] == list(range(start, start + len(messages)))
                    assert [m.value() for m in messages] == [v for _, v in topic.partitions[partition][start:][: len(messages)]]
                if chunks or position == topic.ends():
                    break
        part._consumer.close()  # it dies
        assert committed(broker, name, "g") == done, f"after life {number}"
    assert done == topic.ends()


@dataclass
class Bomb:
    """Ends the flow at its nth call of an input or output, before or after that call's work."""

    calls: int | None
    after: bool

    def guard(self, step: Any) -> Any:
        build = step.build_part

        def build_part(*args: Any) -> Any:
            part = build(*args)
            for name in ("next_batch", "write_batch", "snapshot"):
                if hasattr(part, name):
                    setattr(part, name, self.counted(getattr(part, name)))
            return part

        step.build_part = build_part
        return step

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any) -> Any:
            if self.calls is None:
                return call(*args)
            self.calls -= 1
            if self.calls <= 0 and not self.after:
                raise RuntimeError("killed")
            result = call(*args)
            if self.calls <= 0:
                raise RuntimeError("killed")
            return result

        return inner


def run_legs(broker: InProcessBroker, config: Settings, ends: dict[int, int], bomb: Bomb, epoch: dt.timedelta) -> bool:
    """Runs the live and the archive leg until they have read everything or die; whether they came to the end."""
    progress = Progress()
    run = Run(
        config,
        threading.Event(),
        progress,
        Handover(progress, (config.live.group, config.archive.group), bounded=False, ends=ends),
        {"bootstrap.servers": broker.bootstrap_servers},
        None,
        bomb.guard,
    )
    run.handover.source_ended()
    flow = Dataflow("egx")
    live(flow, run)
    archive(flow, run)
    try:
        run_main(flow, epoch_interval=epoch)
    except RuntimeError:
        return False
    finally:
        ended, kafka._ended[:] = list(kafka._ended), []
    kafka._ended.extend(ended)
    kafka.commit_ended()
    return True


EPOCHS = st.sampled_from([0, 0, 0.001, 0.02, 10]).map(lambda seconds: dt.timedelta(seconds=seconds))


@given(
    topic=topics(longest=16),
    block_messages=st.sampled_from([1, 2, 3, 65536]),
    batch_messages=st.sampled_from([1, 2, 5, 1000]),
    lives=st.lists(st.tuples(st.integers(1, 60), st.booleans(), EPOCHS), max_size=4),
    last_epoch=EPOCHS,
)
@settings(max_examples=min(settings.default.max_examples // 10, 200))
def test_real_dataflows_killed_anywhere_leave_both_stores_as_one_run_would(
    broker: InProcessBroker,
    topic: Topic,
    block_messages: int,
    batch_messages: int,
    lives: list[tuple[int, bool, dt.timedelta]],
    last_epoch: dt.timedelta,
) -> None:
    name = produce(broker, topic)
    with tempfile.TemporaryDirectory() as folder:
        Settings.file = Path(folder) / "config.yaml"
        config = Settings(
            kafka=Kafka(topic=name, dead_letter_topic=f"{name}.dead", batch_messages=batch_messages),
            archive=Archive(block_messages=block_messages),
        )
        broker.create_topic(config.kafka.dead_letter_topic)
        for calls, after, epoch in lives:
            if run_legs(broker, config, topic.ends(), Bomb(calls, after), epoch):
                event("came to the end before the bomb")
        assert run_legs(broker, config, topic.ends(), Bomb(None, False), last_epoch)
        root = Path(folder) / "data/archive/streaming"
        files = [path for path in root.rglob("*") if path.is_file()]
        check_archive(topic, {path.relative_to(root).as_posix(): path.read_bytes() for path in files})
        check_live(topic, Path(folder) / "data/live.sqlite")
        for group in (config.live.group, config.archive.group):
            assert committed(broker, name, group) == topic.ends()
        letters = [
            (message.value(), kafka.headers(message)["leg"])
            for message in dead_letters.read({"bootstrap.servers": broker.bootstrap_servers}, config.kafka.dead_letter_topic)
        ]
        assert set(letters) == {(value, leg) for value in topic.poison() for leg in ("live", "archive")}

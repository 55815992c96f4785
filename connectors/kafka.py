"""Kafka in and out, over librdkafka's clients, and a broker inside this process for runs without one."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import methodcaller
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.cimpl import NewTopic
from typing_extensions import override

from connectors.errors import PermanentError, Stopped, TransientError

log = logging.getLogger(__name__)

Client = Mapping[str, Any]
"""librdkafka's properties; `bootstrap.servers` is the one that must be there."""

CONNECT_SECONDS: Final = 10.0
METADATA_SECONDS: Final = 60.0
COMMIT_ALL_SECONDS: Final = 3600.0  # unchanged offsets too: a broker forgets those it was not told of for seven days
_DENIED: Final = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


Opened = TypeVar("Opened")


_COORDINATOR: Final = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}


class Chunk(NamedTuple):
    """What one call of `consume()` returned of one partition, in the order of its offsets."""

    topic: str
    partition: int
    messages: list[Message]


class Record(msgspec.Struct, frozen=True, gc=False):
    """A message to write."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, str | bytes | None]] | None = None


def headers(message: Message) -> dict[str, str]:
    """A message's headers as text."""
    named: Any = dict(message.headers() or ())
    return {name: value.decode(errors="replace") for name, value in named.items() if isinstance(value, bytes)}


class Reader(Protocol):
    """Told by a `KafkaSource` how far it is; called from the flow's thread."""

    def read(self, group: str, positions: Mapping[int, int], lags: Mapping[int, int]) -> None:
        """Partition -> the offset after the last message handed to the flow, and -> the messages still to come."""

    def committed(self, group: str, offsets: Mapping[int, int]) -> None:
        """Partition -> the offset up to which every output of the flow is durable, now committed."""


class InProcessBroker:
    """librdkafka's mock broker, living as long as this object, reachable on loopback by any client.

    Memory only: about 5 MB or 100,000 messages a partition, 4 partitions a topic; what falls out unread makes its reader
    fail with "offset out of range".
    """

    def __init__(self) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": "in-process",
                "test.mock.num.brokers": 1,
                "log_level": 2,
                "allow.auto.create.topics": True,
            }
        )
        brokers = self._producer.list_topics(timeout=CONNECT_SECONDS).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def create_topic(self, topic: str) -> None:
        """Makes a topic, where it is missing (the mock knows no CreateTopics request, but makes what is asked about)."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while self._producer.list_topics(topic, timeout=CONNECT_SECONDS).topics[topic].error is not None:
            if time.monotonic() > deadline:
                raise TransientError(f"the in-process Kafka broker did not make topic {topic}: start again")


class Topic(NamedTuple):
    """A topic as it is made where it is missing; `replication_factor` -1 is the broker's default."""

    name: str
    partitions: int
    retain_days: float
    replication_factor: int = -1
    config: Mapping[str, str] = {}


def _open(kind: Callable[[dict[str, Any]], Opened], properties: dict[str, Any]) -> Opened:
    """A client of librdkafka. Raises PermanentError for properties that it does not take."""
    try:
        return kind(properties)
    except (KafkaException, TypeError, ValueError) as error:
        reason = error.args[0].str() if isinstance(error, KafkaException) else error
        raise PermanentError(f"no Kafka client can be made of these settings: {reason}: check kafka.client") from None


def _admin(client: Client) -> tuple[AdminClient, list[KafkaError]]:
    errors: list[KafkaError] = []
    return _open(AdminClient, {**client, "error_cb": errors.append, "log_level": 0}), errors


def ensure_topics(client: Client, topics: Iterable[Topic], timeout: float = CONNECT_SECONDS) -> None:
    """Makes the topics that are missing; also the check that a broker answers and lets us in.

    :raises PermanentError: not allowed in, or not allowed to make a topic.
    :raises TransientError: no broker answers within `timeout` seconds.
    """
    admin, errors = _admin(client)
    there = _metadata(client, admin, errors, timeout).topics
    wanted = [topic for topic in topics if topic.name not in there]
    if not wanted:
        return
    futures = admin.create_topics(
        [
            NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=topic.replication_factor,
                config={"retention.ms": str(int(topic.retain_days * 86_400_000)), **topic.config},
            )
            for topic in wanted
        ],
        request_timeout=timeout,
    )
    for name, future in futures.items():
        try:
            future.result()
            log.info("made topic %s", name)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue  # somebody was quicker
            if reason.code() in _DENIED:
                raise PermanentError(f"may not make Kafka topic {name} ({reason.str()}): make it, or grant CREATE") from None
            raise TransientError(f"could not make Kafka topic {name}: {reason.str()}") from None


def cluster_id(client: Client, timeout: float = CONNECT_SECONDS) -> str:
    """The id of the cluster behind the bootstrap servers. Raises TransientError and PermanentError as `ensure_topics` does."""
    admin, errors = _admin(client)
    return str(_metadata(client, admin, errors, timeout).cluster_id)


def _metadata(client: Client, asked: AdminClient | Consumer, errors: list[KafkaError], timeout: float) -> ClusterMetadata:
    """The cluster's metadata; that we are not let in shows at once, that nobody answers after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return asked.list_topics(timeout=min(1.0, timeout))
        except KafkaException as error:
            asked.poll(0)  # brings the reasons
            failure = _connect_error(client, error.args[0], errors)
            if isinstance(failure, PermanentError) or time.monotonic() > deadline:
                raise failure from None


def end_offsets(client: Client, topic: str, timeout: float = CONNECT_SECONDS) -> dict[int, int]:
    """Where a topic ends now: partition -> the offset of the next message. Raises as `ensure_topics` does."""
    errors: list[KafkaError] = []
    consumer = _open(Consumer, {**client, "group.id": "not-used", "error_cb": errors.append, "log_level": 0})
    try:
        partitions = consumer.list_topics(topic, timeout=timeout).topics[topic].partitions
        return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=timeout)[1] for p in partitions}
    except KafkaException as error:
        raise _connect_error(client, error.args[0], errors) from None
    finally:
        consumer.close()


def committed_offsets(client: Client, group: str, topic: str, timeout: float = CONNECT_SECONDS) -> dict[int, int]:
    """What a group has committed: partition -> the offset it goes on at, below 0 where none. Raises as `ensure_topics` does."""
    errors: list[KafkaError] = []
    consumer = Consumer({**client, "group.id": group, "error_cb": errors.append, "log_level": 0})
    try:
        partitions = consumer.list_topics(topic, timeout=timeout).topics[topic].partitions
        return {t.partition: t.offset for t in _committed(consumer, [TopicPartition(topic, p) for p in partitions], timeout)}
    except KafkaException as error:
        raise _connect_error(client, error.args[0], errors) from None
    finally:
        consumer.close()


def _committed(
    consumer: Consumer, partitions: list[TopicPartition], timeout: float, stop: threading.Event | None = None
) -> list[TopicPartition]:
    """The group's offsets; a broker that has only just started is asked again, for at most three times `timeout` seconds."""
    stop, deadline = stop or threading.Event(), time.monotonic() + 3 * timeout
    while True:
        try:
            offsets = consumer.committed(partitions, timeout=timeout)
            for offset in offsets:
                if offset.error is not None:
                    raise KafkaException(offset.error)
            return offsets
        except KafkaException as error:
            passing = error.args[0].retriable() or error.args[0].code() in _COORDINATOR
            if not passing or time.monotonic() > deadline or stop.wait(0.2):
                raise


def _connect_error(client: Client, error: KafkaError, others: Sequence[KafkaError]) -> Exception:
    where = client["bootstrap.servers"]
    for other in (error, *others):
        if other.code() in _DENIED or "SSL" in other.str().upper():
            return PermanentError(
                f"Kafka at {where} refused us: {other.str()}: check kafka.username, EGX_KAFKA__PASSWORD and kafka.client"
            )
    return TransientError(
        f"no Kafka broker answers at {where} ({error.str()}): start one, or set kafka.bootstrap_servers to where it is"
    )


class _ReaderPartition(StatefulSourcePartition[tuple[str, Chunk], None]):
    """Some partitions of the topic through one consumer; see `KafkaSource` for what it promises."""

    def __init__(self, key: str, source: KafkaSource) -> None:
        self._key, self._source = key, source
        self._errors: list[KafkaError] = []
        self._consumer = _open(
            Consumer,
            {
                "queued.max.messages.kbytes": 16_384,
                "fetch.wait.max.ms": 100,
                "fetch.queue.backoff.ms": 10,  # the default is a second without reading whenever the queue was full
                **source.client,
                "group.id": source.group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "error_cb": self._errors.append,
                "log_level": 2,
            },
        )
        try:
            there = _metadata(source.client, self._consumer, self._errors, CONNECT_SECONDS).topics.get(source.topic)
            if there is None:
                raise PermanentError(f"there is no Kafka topic {source.topic}: make it, or set kafka.topic")
            mine = [TopicPartition(source.topic, p) for p in there.partitions if p % source.readers == int(key)]
            committed = _committed(self._consumer, mine, CONNECT_SECONDS, source.stop)
        except KafkaException as error:
            raise _connect_error(source.client, error.args[0], self._errors) from None
        self._next = {t.partition: t.offset for t in committed if t.offset >= 0}
        """Partition -> where reading goes on: all before was given to the flow."""
        self._committed = dict(self._next)
        self._done: dict[int, int] | None = None
        """What `_next` was at the end of the epoch that has ended and is not committed yet."""
        self._commit_all_at = time.monotonic() + COMMIT_ALL_SECONDS
        self._retry_until: float | None = None
        self._down_since: float | None = None
        self._failing_since: dict[int, float] = {}
        """Partition -> since when reading it gives nothing but an error."""
        self._partitions = len(there.partitions)
        self._look_at_partitions = time.monotonic() + METADATA_SECONDS
        self._ended = False
        self._empty = True
        self._tell_at = 0.0
        started = {t.partition for t in mine if t.partition in self._next}
        if started and (new := sorted({t.partition for t in mine} - started)):
            log.info("group %s reads partitions %s of %s for the first time", source.group, new, source.topic)
        self._consumer.assign(
            [TopicPartition(t.topic, t.partition, t.offset if t.offset >= 0 else OFFSET_BEGINNING) for t in committed]
        )

    @override
    def next_batch(self) -> list[tuple[str, Chunk]]:
        # Bytewax calls again after `snapshot()` only when every output has finished that epoch.
        if self._done is not None and not self._commit():
            self._empty = True
            return []
        if self._source.stop.is_set() or self._reached_the_end():
            self._ended = True
            raise StopIteration
        messages = self._consumer.consume(self._source.batch_messages, 0)
        if not messages and self._source.wait_seconds:
            first = self._consumer.poll(self._source.wait_seconds)
            if first is not None:  # an empty message is as false as none
                messages = [first, *self._consumer.consume(self._source.batch_messages - 1, 0)]
        self._empty = not messages
        chunks = []
        for partition, run in groupby(messages, methodcaller("partition")):
            good = self._good(partition, [*run])
            if good:
                self._failing_since.pop(partition, None)
                chunks.append((self._key, Chunk(self._source.topic, partition, good)))
        if chunks:
            self._down_since = None
        else:
            self._check_broker()
            self._check_partitions()
        if messages or time.monotonic() > self._tell_at:  # an idle leg costs next to nothing
            self._tell_at = time.monotonic() + 1
            self._source.reader.read(self._source.group, self._next, self._lags())
        return chunks

    def _good(self, partition: int, run: list[Message]) -> list[Message]:
        """What of a partition's messages is none of librdkafka's own, which tell of errors and ends."""
        if not any(map(Message.error, run)):
            self._next[partition] = (run[-1].offset() or 0) + 1
            return run
        good = []
        for message in run:
            if (error := message.error()) is None:
                good.append(message)
                self._next[partition] = (message.offset() or 0) + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._next[partition] = message.offset() or 0  # past what is no message, such as a transaction's mark
                self._failing_since.pop(partition, None)
            else:
                self._raise_for(error, partition)
        return good

    def _reached_the_end(self) -> bool:
        ends = self._source.until()
        return ends is not None and all(
            self._next.get(p, 0) >= end for p, end in ends.items() if p % self._source.readers == int(self._key)
        )

    def _lags(self) -> dict[int, int]:
        lags = {}
        for partition, offset in self._next.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self._source.topic, partition), cached=True)
            lags[partition] = max(0, high - offset)
        return lags

    def _raise_for(self, error: KafkaError, partition: int) -> None:
        """Raises what ends the leg; what may pass is logged, until it has lasted `retry_seconds`."""
        source = self._source
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            at, where = self._next.get(partition, 0), TopicPartition(source.topic, partition)
            low, high = self._consumer.get_watermark_offsets(where, timeout=CONNECT_SECONDS)
            what = f"group {source.group} stands at offset {at} of {source.topic}[{partition}], the broker has {low} to {high}"
            reset = f"kafka-consumer-groups --reset-offsets --group {source.group} --topic {source.topic}:{partition} --execute"
            if at > high:
                raise PermanentError(
                    f"{what}: the topic was made anew, or the broker has lost what it had acknowledged. To read it from its "
                    f"beginning, with the leg stopped: {reset} --to-earliest"
                )
            raise PermanentError(
                f"{what}: messages were deleted unread. To go on with the oldest that is left, with the leg stopped: "
                f"{reset} --to-earliest"
            )
        if error.code() in _DENIED:
            raise PermanentError(f"may not read {source.topic} as group {source.group}: {error.str()}")
        if not error.retriable() and error.fatal():
            raise TransientError(f"the Kafka consumer of group {source.group} failed: {error.str()}")
        since = self._failing_since.setdefault(partition, time.monotonic())
        if time.monotonic() - since > source.retry_seconds:
            raise TransientError(f"group {source.group} cannot read {source.topic}[{partition}]: {error.str()}")
        log.warning(
            "reading %s[%s]: %s",
            *(source.topic, partition, error.str()),
            extra={
                "group": source.group,
                "topic": source.topic,
                "partition": partition,
                "offset": self._next.get(partition),
            },
        )

    def _check_broker(self) -> None:
        """Ends the process when no broker has answered for `retry_seconds`; librdkafka itself reconnects meanwhile."""
        if self._errors:
            error = self._errors[-1]
            denied = next((e for e in self._errors if e.code() in _DENIED), None)
            self._errors.clear()
            if denied:
                raise _connect_error(self._source.client, denied, ())
            if error.code() == KafkaError._ALL_BROKERS_DOWN and self._down_since is None:
                self._down_since = time.monotonic()
                log.warning("no Kafka broker answers at %s, reconnecting", self._source.client["bootstrap.servers"])
        if self._down_since is not None and time.monotonic() - self._down_since > self._source.retry_seconds:
            try:
                self._consumer.list_topics(self._source.topic, timeout=CONNECT_SECONDS)
                self._down_since = None
            except KafkaException as error:
                raise _connect_error(self._source.client, error.args[0], ()) from None

    def _check_partitions(self) -> None:
        """Says, once a minute, when the topic has got more partitions than this run reads."""
        if time.monotonic() < self._look_at_partitions or self._down_since is not None:
            return
        self._look_at_partitions = time.monotonic() + METADATA_SECONDS
        try:
            there = self._consumer.list_topics(self._source.topic, timeout=CONNECT_SECONDS).topics[self._source.topic]
        except KafkaException:
            return  # the broker is away: that is reported elsewhere
        if len(there.partitions) > self._partitions:
            log.warning(
                "topic %s now has %s partitions, group %s reads %s: start it again to read the new ones too",
                *(self._source.topic, len(there.partitions), self._source.group, self._partitions),
            )

    def _commit(self) -> bool:
        """Commits the ended epoch; until that has worked no more is handed out (at most one epoch may be replayed)."""
        done, due = self._done or {}, time.monotonic() > self._commit_all_at
        new = {p: offset for p, offset in done.items() if due or self._committed.get(p) != offset}
        if new:
            source = self._source
            try:
                for result in self._consumer.commit(
                    offsets=[TopicPartition(source.topic, p, offset) for p, offset in new.items()],
                    asynchronous=False,
                ):
                    if result.error is not None:
                        raise KafkaException(result.error)
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if reason.code() in _DENIED:
                    raise PermanentError(f"may not commit as group {source.group}: {reason.str()}") from None
                self._retry_until = self._retry_until or time.monotonic() + source.retry_seconds
                if time.monotonic() > self._retry_until:
                    raise TransientError(f"group {source.group} could not commit: {reason.str()}") from None
                log.warning("committing group %s: %s, trying again", source.group, reason.str())
                return source.stop.is_set()  # asked to end: the epoch is replayed at the next start
            self._committed.update(new)
            self._retry_until = None
            if due:
                self._commit_all_at = time.monotonic() + COMMIT_ALL_SECONDS
            source.reader.committed(source.group, new)
        self._done = None
        return True

    @override
    def next_awake(self) -> datetime | None:
        waited = self._source.wait_seconds > 0
        return datetime.now(UTC) + self._source.idle if self._empty and not waited else None

    @override
    def snapshot(self) -> None:
        self._done = dict(self._next)
        return

    @override
    def close(self) -> None:
        if self._ended and self._done is not None:
            _ended.append(self)  # its last epoch is still on its way through the outputs
        else:
            self._consumer.close()

    def finish(self) -> None:
        try:
            self._commit()
        finally:
            self._consumer.close()


_ended: list[_ReaderPartition] = []


def commit_ended() -> None:
    """Commits the last epoch of every reader that came to its end.

    To be called once the flow has returned without an error: only then is that epoch durable in all outputs, and Bytewax
    does not call a source again to say so. Left out, the last epoch is merely replayed at the next start.
    """
    while _ended:
        _ended.pop().finish()


class _Silent:
    def read(self, group: str, positions: Mapping[int, int], lags: Mapping[int, int]) -> None:
        """Nobody asked."""

    def committed(self, group: str, offsets: Mapping[int, int]) -> None:
        """Nobody asked."""


_NOBODY = _Silent()


class KafkaSource(FixedPartitionedSource[tuple[str, Chunk], None]):
    """A topic as chunks, keyed by the number of the reader, "0" to `readers` - 1.

    Delivery: at least once. The group's committed offsets in Kafka are the only state: they move when every output of the
    flow has finished the epoch in which the messages were read, so at most one epoch is replayed after a crash, from
    exactly where it began. No recovery directory is needed. A group without offsets starts at the oldest message; an
    offset that the broker no longer has is an error. Unit of parallelism: the reader, which has every `readers`-th
    partition; partitions are read as they were when the flow started. Run a group once at a time.
    """

    def __init__(
        self,
        client: Client,
        topic: str,
        group: str,
        *,
        stop: threading.Event,
        until: Callable[[], Mapping[int, int] | None] = lambda: None,
        reader: Reader = _NOBODY,
        readers: int = 1,
        batch_messages: int = 1000,
        retry_seconds: float = 300,
        idle: timedelta = timedelta(milliseconds=20),
        wait_seconds: float = 0,
    ) -> None:
        """
        :arg stop: when set, the source ends.
        :arg until: once this gives offsets (partition -> offset), the source ends when it has read up to them.
        :arg reader: told of positions and commits.
        :arg readers: consumers.
        :arg batch_messages: most messages one call hands to the flow.
        :arg retry_seconds: how long no broker may answer before the flow fails.
        :arg idle: the wait before asking again where there was nothing.
        :arg wait_seconds: how long a call may itself wait for a message, in place of `idle`: sooner and cheaper where nothing
            else runs on its thread, which it holds up.
        """
        self.client, self.topic, self.group = client, topic, group
        self.stop, self.until, self.reader, self.readers = stop, until, reader, readers
        self.batch_messages, self.retry_seconds, self.idle = batch_messages, retry_seconds, idle
        self.wait_seconds = wait_seconds

    @override
    def list_parts(self) -> list[str]:
        return [str(reader) for reader in range(self.readers)]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _ReaderPartition:
        return _ReaderPartition(for_part, self)


class Writer:
    """A producer that checks every delivery report; outside a flow it can be used by itself."""

    def __init__(self, client: Client, topic: str, *, stop: threading.Event, retry_seconds: float = 300) -> None:
        self._topic, self._stop = topic, stop
        self._delivered: dict[int, int] = {}
        self._failed: KafkaError | None = None
        self._give_up_at: float | None = None
        self._where = client["bootstrap.servers"]
        self._producer = _open(
            Producer,
            {
                "linger.ms": 5,
                "compression.type": "zstd",
                "queue.buffering.max.kbytes": 65_536,
                "message.max.bytes": 10_485_760,
                **client,
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": int(retry_seconds * 1000),
                "on_delivery": self._on_delivery,
                "log_level": 2,
            },
        )

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed = error
        else:
            self._delivered[message.partition() or 0] = (message.offset() or 0) + 1

    def write(self, records: Iterable[Record]) -> dict[int, int]:
        """Writes the records and waits until the broker has them all.

        :returns: Partition -> the offset after the last record of this call in it.
        :raises PermanentError: the broker refuses the records.
        :raises TransientError: they could not be delivered in `retry_seconds`.
        :raises Stopped: the process was asked to end while waiting; some may have been delivered.
        """
        self.send(records)
        return self.wait()

    def send(self, records: Iterable[Record]) -> None:
        """Hands the records to librdkafka, which sends them on its own. Raises as `write` does."""
        self._delivered = {}
        produce, topic = self._producer.produce, self._topic
        for record in records:
            while True:
                try:
                    produce(topic, record.value, record.key, headers=record.headers)
                    break
                except BufferError:
                    self._producer.poll(0.05)
                    self._check()
                    self._check_stop()
                except KafkaException as error:
                    self._failed = error.args[0]
                    self._check()

    def wait(self) -> dict[int, int]:
        """Waits until the broker has all that was sent. Returns and raises as `write` does."""
        while self._producer.flush(0.1):
            self._check()
            self._check_stop()
        self._check()
        self._give_up_at = None
        return self._delivered

    def _check_stop(self) -> None:
        """Raises Stopped a while after the process was asked to end."""
        if self._stop.is_set():
            self._give_up_at = self._give_up_at or time.monotonic() + 5
            if time.monotonic() > self._give_up_at:
                raise Stopped(f"Kafka at {self._where} did not take {len(self._producer)} messages before the end")

    def _check(self) -> None:
        if self._failed is None:
            return
        text = f"Kafka at {self._where} did not take a message for {self._topic}: {self._failed.str()}"
        if self._failed.retriable() or self._failed.code() in (
            KafkaError._MSG_TIMED_OUT,
            KafkaError._TRANSPORT,
        ):
            raise TransientError(f"{text}: check that the broker runs")
        raise PermanentError(f"{text}: check the topic's settings and permissions")


OnWritten = Callable[[int, Mapping[int, int]], None]


class _WriterPartition(StatefulSinkPartition[Sequence[Record], None]):
    def __init__(self, writer: Writer, ahead_from: float, on_written: OnWritten) -> None:
        self._writer, self._ahead_from, self._on_written = writer, ahead_from, on_written
        self._sent = 0
        """Records that were handed to the writer and are not known to be with the broker yet."""

    @override
    def write_batch(self, values: list[Sequence[Record]]) -> None:
        tell = self._wait()
        self._sent = sum(map(len, values))
        try:
            self._writer.send(record for batch in values for record in batch)
        finally:
            tell()  # while librdkafka sends
        if self._sent < self._ahead_from:
            self._wait()()

    @property
    def calls_underway(self) -> int:
        """How many of the last calls' records are not known to be with the broker."""
        return 1 if self._sent else 0

    def _wait(self) -> Callable[[], None]:
        """Waits until the broker has what was sent; gives what then tells so."""
        if not self._sent:
            return lambda: None
        ends = self._writer.wait()
        sent, self._sent = self._sent, 0
        return lambda: self._on_written(sent, ends)

    @override
    def snapshot(self) -> None:
        self._wait()()
        return


class KafkaSink(FixedPartitionedSink[Sequence[Record], None]):
    """Writes batches of records to a topic; items are (any key, records).

    Delivery: durable when `write_batch` returns (acks=all, every delivery report checked), in order within a key, and never
    doubled by a retry (idempotent producer); a batch that is handed over again after a crash is written again. A batch of at
    least `ahead_from` records may still be on its way then, while the flow prepares the next: it is durable when that is
    handed over, and at the end of the epoch. One partition: a topic's writer is one, so that its order is the order of the flow.
    """

    def __init__(
        self,
        client: Client,
        topic: str,
        *,
        stop: threading.Event,
        retry_seconds: float = 300,
        ahead_from: float = math.inf,
        on_written: OnWritten = lambda count, ends: None,
    ) -> None:
        """
        :arg retry_seconds: how long a record may wait for the broker before the flow fails.
        :arg ahead_from: records.
        :arg on_written: called with how many records were written, and partition -> the offset after the last of them.
        """
        self._client, self._topic, self._stop = client, topic, stop
        self._retry_seconds, self._ahead_from, self._on_written = retry_seconds, ahead_from, on_written

    @override
    def list_parts(self) -> list[str]:
        return ["0"]

    @override
    def part_fn(self, item_key: str) -> int:
        return 0

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _WriterPartition:
        return _WriterPartition(
            Writer(self._client, self._topic, stop=self._stop, retry_seconds=self._retry_seconds),
            self._ahead_from,
            self._on_written,
        )

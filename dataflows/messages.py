"""From what Kafka holds to bars, and to dead letters for what are none."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from connectors.kafka import Chunk, Record, headers
from dataflows.bar import AHEAD, Bar, Rejected, decode_all
from dataflows.bar import decode as decode_one

log = logging.getLogger(__name__)

LEGS_HEADER = "legs"
"""Of a replayed dead letter: the legs, separated by commas, that rejected it and take it up now; others pass it over."""


class Decoded(NamedTuple):
    """A chunk's good bars, each with its message, and its bad messages, each with the reason; both in topic order."""

    topic: str
    partition: int
    bars: list[tuple[Bar, Message]]
    rejected: list[tuple[Rejected, Message]]


def decode(chunk: Chunk, leg: str, now: dt.datetime) -> Decoded:
    """Decodes what is meant for a leg of a chunk, at once.

    What times are believed is measured from when each message came into Kafka, not from when it is read: a replay must judge
    every message as the first run did. `now` (aware) stands in where a message has no such time.
    """
    messages = chunk.messages
    if any(map(Message.headers, messages)):
        messages = [message for message in messages if _is_for(leg, message)]
    values = [message.value() or b"" for message in messages]
    # What is believed at the earliest arrival is believed at each.
    earliest = min((_at(*arrival, now) for arrival in set(map(Message.timestamp, messages))), default=now)
    results = decode_all(values, earliest)
    if {type(result) for result in results} == {Bar}:
        bars: Any = results
        return Decoded(chunk.topic, chunk.partition, list(zip(bars, messages, strict=True)), [])
    decoded = Decoded(chunk.topic, chunk.partition, [], [])
    for result, message, value in zip(results, messages, values, strict=True):
        if type(result) is not Bar:
            result = decode_one(value, _at(*message.timestamp(), now))
        if isinstance(result, Rejected):
            decoded.rejected.append((result, message))
        else:
            decoded.bars.append((result, message))
    return decoded


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _at(kind: int, milliseconds: int, now: dt.datetime) -> dt.datetime:
    """When Kafka got a message, by its timestamp; to the second."""
    return now if kind == TIMESTAMP_NOT_AVAILABLE else _second(milliseconds // 1000)


@lru_cache(maxsize=1024)
def _second(seconds: int) -> dt.datetime:
    try:
        return _EPOCH + dt.timedelta(seconds=seconds)
    except OverflowError:
        return dt.datetime.max.replace(tzinfo=dt.UTC) - 2 * AHEAD


def _is_for(leg: str, message: Message) -> bool:
    if not message.headers():
        return True
    legs = headers(message).get(LEGS_HEADER)
    return legs is None or leg in legs.split(",")


LARGEST_LETTER = 8_000_000
"""Bytes of a message that go into a dead letter; the topic takes 10 MB, and its original stands where the headers say."""


def dead_letter(leg: str, message: Message, reason: str) -> Record:
    """The rejected message as it was, with why, by which leg and where it stood as headers.

    Of one of more than 8 MB the beginning, and a header `truncated` with its whole size.
    """
    value = message.value() or b""
    cut = [("truncated", str(len(value)).encode())] if len(value) > LARGEST_LETTER else []
    return Record(
        key=(message.key() or b"")[:10_000] if message.key() is not None else None,
        value=value[:LARGEST_LETTER],
        headers=[
            *cut,
            ("error", reason[:1000].encode()),
            ("leg", leg.encode()),
            ("topic", (message.topic() or "").encode()),
            ("partition", str(message.partition()).encode()),
            ("offset", str(message.offset()).encode()),
        ],
    )


def dead_letters(leg: str) -> Callable[[Decoded], list[Record] | None]:
    """The dead letters of what a leg decoded, None where there are none; said in the log once a chunk."""

    def letters(decoded: Decoded) -> list[Record] | None:
        if not decoded.rejected:
            return None
        why, first = decoded.rejected[0]
        log.warning(
            "%s rejects %s of %s messages of %s[%s], the first at offset %s: %s",
            *(leg, len(decoded.rejected), len(decoded.rejected) + len(decoded.bars), decoded.topic, decoded.partition),
            *(first.offset(), why.reason),
            extra={
                "leg": leg,
                "symbol": (first.key() or b"").decode(errors="backslashreplace"),
                "topic": decoded.topic,
                "partition": decoded.partition,
                "offset": first.offset(),
            },
        )
        return [dead_letter(leg, message, why.reason) for why, message in decoded.rejected]

    return letters

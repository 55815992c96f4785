"""From what Kafka holds to bars, and to dead letters for what are none."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka import Message

from connectors.kafka import Chunk, Record, headers
from dataflows.bar import Bar, Rejected, decode_all

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
    """Decodes what is meant for a leg of a chunk, at once; `now` (aware) bounds the times that are believed."""
    messages = [message for message in chunk.messages if _is_for(leg, message)]
    results = decode_all([message.value() or b"" for message in messages], now)
    decoded = Decoded(chunk.topic, chunk.partition, [], [])
    for result, message in zip(results, messages, strict=True):
        if type(result) is Bar:
            decoded.bars.append((result, message))
        elif isinstance(result, Rejected):
            decoded.rejected.append((result, message))
    return decoded


def _is_for(leg: str, message: Message) -> bool:
    if not message.headers():
        return True
    legs = headers(message).get(LEGS_HEADER)
    return legs is None or leg in legs.split(",")


def dead_letter(leg: str, message: Message, reason: str) -> Record:
    """The rejected message as it was, with why, by which leg and where it stood as headers."""
    return Record(
        key=message.key(),
        value=message.value() or b"",
        headers=[
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

"""From chunks of Kafka messages to bars and dead letters."""

from __future__ import annotations

import datetime as dt
from typing import Any

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE

from connectors.kafka import Chunk
from dataflows.bar import AHEAD, Bar, encode
from dataflows.messages import LARGEST_LETTER, dead_letter, decode

ARRIVED = dt.datetime(2025, 12, 7, 12, tzinfo=dt.UTC)


class Message:
    """As much of a message of confluent_kafka, which cannot be made by hand, as a leg asks for."""

    def __init__(self, value: bytes, arrived: dt.datetime | None = ARRIVED, offset: int = 0) -> None:
        self._value, self._arrived, self._offset = value, arrived, offset

    def value(self) -> bytes:
        return self._value

    def key(self) -> bytes:
        return b"COMI"

    def headers(self) -> None:
        return None

    def topic(self) -> str:
        return "topic"

    def partition(self) -> int:
        return 1

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        if self._arrived is None:
            return TIMESTAMP_NOT_AVAILABLE, -1
        return TIMESTAMP_CREATE_TIME, int(self._arrived.timestamp() * 1000)


def bar(start: dt.datetime) -> bytes:
    return encode(Bar("COMI", "EGX", "1 Minute", start, 1.0, 1.0, 1.0, 1.0, 1, ARRIVED, "test", True))


def chunk(*messages: Message) -> Chunk:
    listed: list[Any] = list(messages)
    return Chunk("topic", 1, listed)


def test_a_replay_judges_a_time_on_the_border_as_the_first_run_did() -> None:
    inside, outside = bar(ARRIVED + AHEAD), bar(ARRIVED + AHEAD + dt.timedelta(seconds=2))
    messages = chunk(Message(inside), Message(outside), Message(outside, ARRIVED + dt.timedelta(seconds=2)))

    judged = [
        ([bar.datetime for bar, _ in decoded.bars], len(decoded.rejected))
        for decoded in (decode(messages, "live", ARRIVED + later) for later in (dt.timedelta(0), dt.timedelta(days=30)))
    ]

    assert judged[0] == judged[1] == ([ARRIVED + AHEAD, ARRIVED + AHEAD + dt.timedelta(seconds=2)], 1)


def test_without_a_time_of_arrival_the_clock_stands_in() -> None:
    value = bar(ARRIVED + 2 * AHEAD)

    assert len(decode(chunk(Message(value, None)), "live", ARRIVED).rejected) == 1
    assert len(decode(chunk(Message(value, None)), "live", ARRIVED + AHEAD).bars) == 1


def test_a_letter_that_its_topic_would_not_take_is_cut_and_says_so() -> None:
    message: Any = Message(b"x" * (LARGEST_LETTER + 1), offset=7)

    letter = dead_letter("live", message, "not JSON")

    assert letter.value == b"x" * LARGEST_LETTER
    assert dict(letter.headers or [])["truncated"] == str(LARGEST_LETTER + 1).encode()
    assert dict(letter.headers or [])["offset"] == b"7"

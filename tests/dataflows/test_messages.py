from __future__ import annotations

import datetime as dt

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka import Chunk
from dataflows.bar import AHEAD, Bar, Rejected, encode
from dataflows.bar import decode as decode_one
from dataflows.messages import LARGEST_LETTER, LEGS_HEADER, dead_letter, dead_letters, decode
from tests.dataflows.bars import NOW, bar, bars

VALUES = bars().map(encode) | st.binary(max_size=5) | st.none()


def chunk(*values: bytes | None) -> Chunk:
    return Chunk(
        "t", 2, [Message(topic="t", partition=2, offset=10 + at, key=b"k", value=value) for at, value in enumerate(values)]
    )


@given(st.lists(VALUES))
def test_each_message_is_a_bar_or_rejected_in_the_topics_order(values: list[bytes | None]) -> None:
    made = decode(chunk(*values), "live", NOW)
    both = sorted([*made.bars, *made.rejected], key=lambda pair: pair[1].offset() or 0)
    assert [result for result, _ in both] == [decode_one(value or b"", NOW) for value in values]
    assert all(type(result) is Bar for result, _ in made.bars)
    assert all(type(result) is Rejected for result, _ in made.rejected)
    for pairs in (made.bars, made.rejected):
        offsets = [message.offset() for _, message in pairs]
        assert offsets == sorted(offsets)
    assert (made.topic, made.partition) == ("t", 2)


def test_a_deleted_keys_message_is_rejected() -> None:
    made = decode(chunk(None), "live", NOW)
    assert (made.bars, len(made.rejected)) == ([], 1)


def test_a_message_that_names_legs_is_for_these_only() -> None:
    messages = [
        Message(value=encode(bar()), headers=headers, offset=offset)
        for offset, headers in enumerate([None, [(LEGS_HEADER, b"live")], [(LEGS_HEADER, b"archive,live")], [("other", b"x")]])
    ]
    offsets = {leg: [m.offset() for _, m in decode(Chunk("t", 0, messages), leg, NOW).bars] for leg in ("live", "archive")}
    assert offsets == {"live": [0, 1, 2, 3], "archive": [0, 2, 3]}


@given(st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=9), st.text(max_size=2_000))
def test_a_dead_letter_is_the_message_as_it_was_with_why_and_where_from(
    value: bytes | None, key: bytes | None, reason: str
) -> None:
    reason = reason.encode(errors="replace").decode()
    letter = dead_letter("live", Message(topic="t", partition=3, offset=42, key=key, value=value), reason)
    assert (letter.key, letter.value) == (key, value or b"")
    assert dict(letter.headers or []) == {
        "error": reason[:1000].encode(),
        "leg": b"live",
        "topic": b"t",
        "partition": b"3",
        "offset": b"42",
    }


def test_there_are_as_many_dead_letters_as_rejected_messages_and_none_is_nothing() -> None:
    assert dead_letters("live")(decode(chunk(encode(bar())), "live", NOW)) is None
    letters = dead_letters("archive")(decode(chunk(b"a", encode(bar()), b"b"), "archive", NOW))
    assert letters
    assert [(letter.value, dict(letter.headers or [])["offset"]) for letter in letters] == [(b"a", b"10"), (b"b", b"12")]


ARRIVED = dt.datetime(2025, 12, 7, 12, tzinfo=dt.UTC)


def arriving(start: dt.datetime, arrived: dt.datetime | None) -> Message:
    """A message of a bar that starts then, which came into Kafka when the other says."""
    when = (TIMESTAMP_CREATE_TIME, int(arrived.timestamp() * 1000)) if arrived else (TIMESTAMP_NOT_AVAILABLE, -1)
    return Message(value=encode(bar(datetime=start)), timestamp=when)


def test_a_replay_judges_a_time_on_the_border_as_the_first_run_did() -> None:
    inside, outside = ARRIVED + AHEAD, ARRIVED + AHEAD + dt.timedelta(seconds=2)
    messages = [arriving(inside, ARRIVED), arriving(outside, ARRIVED), arriving(outside, ARRIVED + dt.timedelta(seconds=2))]
    for later in (dt.timedelta(0), dt.timedelta(days=30)):
        made = decode(Chunk("t", 0, messages), "live", ARRIVED + later)
        assert [one.datetime for one, _ in made.bars] == [inside, outside]
        assert [message for _, message in made.rejected] == [messages[1]]


def test_without_a_time_of_arrival_the_clock_stands_in() -> None:
    late = Chunk("t", 0, [arriving(ARRIVED + 2 * AHEAD, None)])
    assert len(decode(late, "live", ARRIVED).rejected) == 1
    assert len(decode(late, "live", ARRIVED + AHEAD).bars) == 1


def test_a_letter_that_its_topic_would_not_take_is_cut_and_says_so() -> None:
    letter = dead_letter("live", Message(value=b"x" * (LARGEST_LETTER + 1), offset=7), "not JSON")
    headers = dict(letter.headers or [])
    assert letter.value == b"x" * LARGEST_LETTER
    assert (headers["truncated"], headers["offset"]) == (str(LARGEST_LETTER + 1).encode(), b"7")

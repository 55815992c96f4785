from __future__ import annotations

import datetime as dt
import json
import math
import re
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dataflows.bar import (
    AHEAD,
    CAIRO,
    EARLIEST,
    INTERVALS,
    MAX_NESTING,
    MAX_VOLUME,
    Bar,
    Rejected,
    canonical,
    decode,
    decode_all,
    encode,
    from_fields,
    instant,
)
from tests.dataflows.bars import INSTANTS, NOW, TEXTS, bar, bars, fields, message

GOOD = message()

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=8,
)
UNKNOWN_FIELDS = st.dictionaries(TEXTS.filter(lambda name: name not in fields()), JSON_VALUES, max_size=4)


def spaced(fields: dict[str, Any], spaces: list[str]) -> bytes:
    """The fields as JSON with other white space between the tokens, line breaks among it."""
    text, number = json.dumps(fields, ensure_ascii=False, indent=1), iter(spaces * 1000)
    return re.sub(r"\n *", lambda _: next(number), text).encode()


SPACES = st.lists(st.text(" \t\r\n", max_size=3), min_size=1, max_size=5)


@st.composite
def mutated(draw: st.DrawFn, most: int = 4) -> bytes:
    """A good message with a few bytes cut out, put in, doubled or changed, at so many places at most."""
    value = bytearray(draw(st.one_of(bars().map(encode), st.builds(spaced, bars().map(lambda b: json.loads(encode(b))), SPACES))))
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(value)))
        end = draw(st.integers(at, min(at + 12, len(value))))
        value[at:end] = draw(
            st.binary(max_size=4)
            | st.sampled_from(
                [b"\n", b"{", b"}", b"{}", b"[", b'"', b"\\", b"\\ud800", b"NaN", b"1e999", b"\xff", b"\0", b",", b"-"]
            )
            | st.just(bytes(value[at:end]) * 2)
        )
    return bytes(value)


@given(bars())
def test_a_bar_survives_its_message(bar: Bar) -> None:
    assert decode(encode(bar), NOW) == bar


@given(bars())
def test_a_message_is_json_of_the_contract(bar: Bar) -> None:
    read = json.loads(encode(bar))
    assert list(read) == [
        *("symbol", "exchange", "interval", "datetime", "open", "high", "low", "close", "volume"),
        *("ingestion_timestamp", "source", "is_final"),
    ]
    assert (read["open"], read["volume"], read["source"], read["is_final"]) == (bar.open, bar.volume, bar.source, bar.is_final)
    assert dt.datetime.fromisoformat(read["datetime"]) == bar.datetime
    assert read["datetime"].endswith("Z")


def is_a_bar(result: Bar) -> bool:
    """Whether it keeps all that the contract says of a bar."""
    return (
        all(re.fullmatch(r"[A-Z0-9._]{1,20}", name) is not None for name in (result.symbol, result.exchange))
        and result.interval in INTERVALS
        and all(
            time.utcoffset() == dt.timedelta(0) and EARLIEST <= time <= NOW + AHEAD
            for time in (result.datetime, result.ingestion_timestamp)
            if time is not None
        )
        and all(
            price is None or (type(price) is float and math.isfinite(price) and price > 0)
            for price in (result.open, result.high, result.low, result.close)
        )
        and (result.volume is None or (type(result.volume) is int and 0 <= result.volume <= MAX_VOLUME))
        and (result.source is None or type(result.source) is str)
        and result.is_final in (None, True, False)
    )


def bar_or_reason(result: object) -> bool:
    if isinstance(result, Rejected):
        return bool(result.reason.encode())
    return isinstance(result, Bar) and is_a_bar(result)


@given(st.binary() | mutated() | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
@example(b"")
@example(b"\xef\xbb\xbf" + GOOD)
@example(GOOD.replace(b'"Daily"', b'"\\ud800"'))
@example(GOOD + b" " + GOOD)
@example(GOOD.replace(b"83.1", b"1e400"))
@example(GOOD.replace(b"83.1", b"1e-400"))
@example(GOOD.replace(b"1250000", b"9223372036854775808"))
@example(GOOD.replace(b"1250000", b"1" + b"0" * 400))
def test_any_bytes_are_a_valid_bar_or_rejected_with_a_reason(value: bytes) -> None:
    result = decode(value, NOW)
    assert bar_or_reason(result)
    if isinstance(result, Bar):
        assert isinstance(json.loads(value), dict)


@given(st.lists(st.binary(max_size=8) | mutated() | bars().map(encode) | st.sampled_from([b"", b"{", GOOD + GOOD]), max_size=5))
@example([GOOD + GOOD, b""])
@example([b"", GOOD + GOOD])
@example([GOOD + b" " + GOOD, b" "])
@example([GOOD[:40], GOOD[40:]])
@example([GOOD, b"", GOOD])
@example([GOOD, b"\n"])
@example([b"{" + GOOD[1:], GOOD + b"\r"])
@example([GOOD, GOOD + b"\xff", GOOD])
def test_many_messages_are_decoded_as_each_by_itself(values: list[bytes]) -> None:
    assert decode_all(values, NOW) == [decode(value, NOW) for value in values]


def test_messages_of_our_own_are_decoded_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflows.bar.decode", None)  # the way message by message
    assert decode_all([encode(bar())] * 3, NOW) == [bar()] * 3


FIELD_VALUES = {
    **dict.fromkeys(
        ("symbol", "exchange"), st.sampled_from(["COMI", "A.B_9", "comi", "", "A" * 20, "A" * 21, "A/B", "COMI\n", 5, None])
    ),
    "interval": st.sampled_from([*INTERVALS, "daily", "", None, 1]),
    **dict.fromkeys(("open", "high", "low", "close"), st.sampled_from([None, 1, 0.5, 0, -1.0, "1", True, 10**30, [], {}])),
    "volume": st.sampled_from([None, 0, 5, 5.0, 5.5, -1, MAX_VOLUME, MAX_VOLUME + 1, 1e30, "5", False, []]),
    **dict.fromkeys(
        ("datetime", "ingestion_timestamp"),
        st.sampled_from(
            [
                *("2025-12-07T08:00:00Z", "2025-12-07", "1989-12-31T23:59:59Z", "2026-11-25T12:00:01Z", "2026-11-25T12:00:00Z"),
                *("2025-13-01", "yesterday", "", None, 1733558400, "0001-01-01T00:00:00", "9999-12-31T23:59:59-23:59"),
            ]
        ),
    ),
    "source": st.sampled_from([None, "", "x", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), 5, []]),
    "is_final": st.sampled_from([None, True, False, 1, "true"]),
}
OPTIONAL = ("ingestion_timestamp", "source", "is_final")


def contract_allows(message: dict[str, Any]) -> bool:
    """The contract, written a second time and without msgspec."""

    def name(value: object) -> bool:
        return isinstance(value, str) and re.fullmatch(r"[A-Z0-9._]{1,20}", value) is not None

    def number(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def time(value: object) -> bool:
        if not isinstance(value, str):
            return False
        try:
            parsed = dt.datetime.fromisoformat(value)
            return EARLIEST <= (parsed if parsed.tzinfo else parsed.replace(tzinfo=CAIRO)).astimezone(dt.UTC) <= NOW + AHEAD
        except (ValueError, OverflowError):
            return False

    volume = message.get("volume", "")
    return (
        all(name(message.get(key)) for key in ("symbol", "exchange"))
        and message.get("interval") in INTERVALS
        and time(message.get("datetime"))
        and all((p := message.get(key, "")) is None or (number(p) and p > 0) for key in ("open", "high", "low", "close"))
        and (volume is None or (number(volume) and 0 <= volume <= MAX_VOLUME and volume == int(volume)))
        and (message.get("ingestion_timestamp") is None or time(message["ingestion_timestamp"]))
        and (message.get("source") is None or isinstance(message["source"], str))
        and message.get("is_final") in (None, True, False)
        and type(message.get("is_final")) is not int
    )


@st.composite
def partly_wrong(draw: st.DrawFn) -> dict[str, Any]:
    made = fields()
    for key in draw(st.lists(st.sampled_from(list(FIELD_VALUES)), unique=True, max_size=3)):
        if draw(st.integers(0, 9)) == 0:
            del made[key]
        else:
            made[key] = draw(FIELD_VALUES[key])
    return made


@given(partly_wrong())
def test_exactly_what_the_contract_allows_is_accepted(message: dict[str, Any]) -> None:
    assert isinstance(decode(json.dumps(message).encode(), NOW), Bar) == contract_allows(message)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "Expected `object`"),
        (b"5", "Expected `object`"),
        (b"\xff", "not JSON"),
        (message(symbol=...), "missing required field `symbol`"),
        (message(datetime=...), "missing required field `datetime`"),
        (message(close=...), "missing required field `close`"),
        (message(volume=...), "missing required field `volume`"),
        (message(symbol="EGX:COMI"), "`$.symbol`"),
        (message(symbol="COMI\n"), "`$.symbol`"),
        (message(interval="Hourly"), "`$.interval`"),
        (message(open="83.1"), "`$.open`"),
        (message(low=0), "`$.low`"),
        (message(high=-1), "`$.high`"),
        (message(close=math.nan), "not JSON"),
        (message(close=math.inf), "not JSON"),
        (GOOD.replace(b"83.1", b"1e400"), ""),
        (message(volume=1.5), "1.5 is no whole number"),
        (message(volume=-1), "-1 is no whole number"),
        (message(volume=2**63), "is no whole number"),
        (message(datetime="2025-12-32"), "'2025-12-32' is no ISO 8601 time"),
        (message(datetime="1989-12-31T23:59:59Z"), "before 1990 or over a day ahead - at `$.datetime`"),
        (message(ingestion_timestamp="2026-11-25T12:00:00.000001Z"), "over a day ahead - at `$.ingestion_timestamp`"),
        (message(is_final="yes"), "`$.is_final`"),
    ],
)
def test_a_bad_message_is_rejected_with_what_is_wrong(value: bytes, reason: str) -> None:
    result = decode(value, NOW)
    assert isinstance(result, Rejected)
    assert reason in result.reason


def test_data_that_contradicts_itself_is_kept() -> None:
    odd = decode(message(high=1.0, low=9.0, close=50.0, volume=0), NOW)
    assert isinstance(odd, Bar)
    assert (odd.high, odd.low, odd.close, odd.volume) == (1.0, 9.0, 50.0, 0)


def test_absent_is_none_and_optional_fields_may_be_missing() -> None:
    assert decode(message(open=None, volume=None, ingestion_timestamp=..., source=..., is_final=...), NOW) == bar(
        open=None, volume=None, ingestion_timestamp=None, source=None, is_final=None
    )


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2025-12-07T10:00:00", "2025-12-07T08:00:00"),  # winter: Cairo is two hours ahead
        ("2025-07-07T10:00:00", "2025-07-07T07:00:00"),  # summer time since 2023
        ("2022-07-07T10:00:00", "2022-07-07T08:00:00"),  # none in 2015-2022
        ("2025-12-07T10:00:00+02:00", "2025-12-07T08:00:00"),
        ("2025-12-07T08:00:00Z", "2025-12-07T08:00:00"),
        ("2025-12-07 10:00", "2025-12-07T08:00:00"),
    ],
)
def test_a_time_without_an_offset_is_cairos(text: str, utc: str) -> None:
    assert instant(text) == dt.datetime.fromisoformat(utc).replace(tzinfo=dt.UTC)


@given(INSTANTS, st.integers(-14 * 60, 14 * 60))
def test_any_offset_gives_the_same_instant(time: dt.datetime, minutes: int) -> None:
    assert instant(time.astimezone(dt.timezone(dt.timedelta(minutes=minutes))).isoformat()) == time


# canonical: the archive's line


@st.composite
def good_messages(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """A message that decodes to a bar, as any producer might lay it out, and its unknown fields."""
    given, unknown = json.loads(encode(draw(bars()))), draw(UNKNOWN_FIELDS)
    layout = draw(st.sampled_from(["own", "foreign", "shuffled"]))
    if layout == "own":
        return encode(msgspec.convert(given, Bar)), {}
    if draw(st.booleans()):
        given["datetime"] = dt.datetime.fromisoformat(given["datetime"]).astimezone(CAIRO).isoformat()
    if given["volume"] is not None and given["volume"] < 2**53 and draw(st.booleans()):
        given["volume"] = float(given["volume"])
    for key in draw(st.lists(st.sampled_from(OPTIONAL), unique=True)):
        given.pop(key)
    items = list({**given, **unknown}.items())
    if layout == "shuffled":
        items = draw(st.permutations(items))
    return spaced(dict(items), draw(SPACES)), unknown


@given(good_messages(), INSTANTS)
def test_the_archive_line_is_one_line_of_the_same_bar_with_utc_times(
    made: tuple[bytes, dict[str, Any]], arrived: dt.datetime
) -> None:
    value, unknown = made
    read = decode(value, NOW)
    assert isinstance(read, Bar)
    line = canonical(value, read, arrived)
    assert len(line.splitlines()) == 1
    assert decode(line, NOW) == msgspec.structs.replace(read, ingestion_timestamp=read.ingestion_timestamp or arrived)
    kept = json.loads(line)
    for key in ("datetime", "ingestion_timestamp"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", kept[key])
    assert kept["volume"] is None or type(kept["volume"]) is int
    assert {key: kept[key] for key in unknown} == unknown
    assert canonical(line, read, arrived) == line


@given(mutated(most=1), INSTANTS)
def test_whatever_decodes_has_an_archive_line_that_decodes_to_it(value: bytes, arrived: dt.datetime) -> None:
    read = decode(value, NOW)
    assume(isinstance(read, Bar))
    line = canonical(value, read, arrived)
    assert len(line.splitlines()) == 1
    assert decode(line, NOW) == msgspec.structs.replace(read, ingestion_timestamp=read.ingestion_timestamp or arrived)


@given(bars(ingestion_timestamp=INSTANTS))
def test_our_own_messages_are_archived_to_the_letter(bar: Bar) -> None:
    assert canonical(encode(bar), bar, NOW) == encode(bar)


@pytest.mark.parametrize("time", ["2025-W49-7T08:00:00Z", "20251207T080000Z", "2025-12-07x08:00:00Z", "2025-12-07T08Z"])
def test_a_time_that_only_python_reads_is_archived_as_all_read_it(time: str) -> None:
    value = encode(bar()).replace(b"2025-12-07T08:00:00Z", time.encode())
    read = decode(value, NOW)
    assert read == bar()
    assert canonical(value, read, NOW) == encode(bar())


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [1, MAX_NESTING - 1, MAX_NESTING, 900, 990, 995, 997, 999, 5_000, 200_000])
def test_deeply_nested_fields_are_kept_or_rejected_at_the_same_depth_everywhere(opening: str, depth: int) -> None:
    close = {"[": "]", '{"a":': "}"}[opening]
    nested = opening * depth + "1" + close * depth
    value = GOOD[:-1] + f',"deep":{nested}}}'.encode()

    def deeper(frames: int) -> Bar | Rejected:
        return decode(value, NOW) if frames == 0 else deeper(frames - 1)

    read = decode(value, NOW)
    assert read == deeper(400)
    if depth < MAX_NESTING:
        assert isinstance(read, Bar)
        assert nested.encode() in canonical(value, read, NOW)
    else:
        assert isinstance(read, Rejected)
        assert "nested" in read.reason


def test_wide_unknown_fields_are_not_taken_for_deep_ones() -> None:
    value = message(notes=[{"text": '[[{"\\'}] * 1_000)
    assert decode(value, NOW) == bar()


# from_fields: a row of a file


@given(bars(ingestion_timestamp=st.none()))
def test_a_bar_survives_a_row_of_text(bar: Bar) -> None:
    row = {key: repr(value) if isinstance(value, float) else value for key, value in json.loads(encode(bar)).items()}
    row = {key: str(value) if type(value) in (int, bool) else value for key, value in row.items()}
    assert from_fields(row, NOW) == bar


@given(st.dictionaries(st.sampled_from(list(fields())), TEXTS | JSON_VALUES | st.floats()))
def test_any_row_is_a_valid_bar_or_rejected(row: dict[str, Any]) -> None:
    assert bar_or_reason(from_fields({**fields(), **row}, NOW))


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "Infinity", "1e400", "0", "-1", "", "x"])
@pytest.mark.parametrize("field", ["open", "volume"])
def test_a_row_with_a_number_that_is_none_is_rejected(field: str, text: str) -> None:
    result = from_fields(fields(**{field: text}), NOW)
    if (field, text) == ("volume", "0"):
        assert result == bar(volume=0)
    else:
        assert isinstance(result, Rejected)
        assert f"$.{field}" in result.reason

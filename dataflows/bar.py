"""The bar and its message: the one definition that Kafka, the live store, the archive and bronze are checked against.

A bar is identified by (exchange, symbol, interval, datetime); its version is `ingestion_timestamp`.
Absent values are None, never 0.
"""

from __future__ import annotations

import datetime as dt
import re
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo

import msgspec

CAIRO: Final = ZoneInfo("Africa/Cairo")
EARLIEST: Final = dt.datetime(1990, 1, 1, tzinfo=dt.UTC)
AHEAD: Final = dt.timedelta(days=1)
MAX_VOLUME: Final = 2**63 - 1  # what the stores' integers hold
MAX_NESTING: Final = 200  # of unknown fields; far below the depth at which a decoder gives up, which is not the same everywhere

Interval = Literal["Daily", "Weekly", "Monthly", "1 Minute", "5 Minute", "30 Minute"]
INTERVALS: Final[tuple[Interval, ...]] = get_args(Interval)

_NAME: Final = re.compile(r"[A-Z0-9._]{1,20}")
Name = Annotated[str, msgspec.Meta(pattern=rf"^{_NAME.pattern}\Z")]
Price = Annotated[float, msgspec.Meta(gt=0, le=sys.float_info.max)]


class Bar(msgspec.Struct, frozen=True, gc=False):
    """One version of one OHLCV bar.

    `datetime` is the bar's START and `ingestion_timestamp` the time of publication, both aware and in UTC. Prices are in
    the instrument's currency, finite and > 0; `volume` is in shares, >= 0. `is_final`: the bar's period is over.
    """

    symbol: str
    exchange: str
    interval: Interval
    datetime: dt.datetime
    open: Price | None
    high: Price | None
    low: Price | None
    close: Price | None
    volume: Annotated[int, msgspec.Meta(ge=0, le=MAX_VOLUME)] | None
    ingestion_timestamp: dt.datetime | None = None
    source: str | None = None
    is_final: bool | None = None


class Rejected(NamedTuple):
    """Why a message is no bar."""

    reason: str


class _Message(msgspec.Struct, gc=False):
    """The message of any producer: types are checked by the decoder, times and a whole volume by `_bar`."""

    symbol: Name
    exchange: Name
    interval: Interval
    datetime: str
    open: Price | None
    high: Price | None
    low: Price | None
    close: Price | None
    volume: int | float | None
    ingestion_timestamp: str | None = None
    source: str | None = None
    is_final: bool | None = None


_bar_decoder: Final = msgspec.json.Decoder(Bar)
_decoder: Final = msgspec.json.Decoder(_Message)
_encoder: Final = msgspec.json.Encoder()


def encode(bar: Bar) -> bytes:
    """The bar as its Kafka message: one JSON object, times as RFC 3339 in UTC."""
    return _encoder.encode(bar)


def decode(value: bytes, now: dt.datetime) -> Bar | Rejected:
    """The bar in a message, or why there is none; never an exception, whatever the bytes.

    A time without an offset is taken as Africa/Cairo. `now` (aware) bounds the times that are believed: from 1990 until
    a day ahead.
    """
    try:
        if not value.isascii():
            value.decode()
        if value.count(b"[") + value.count(b"{") > MAX_NESTING and _nesting(value) > MAX_NESTING:
            return Rejected(f"nested more than {MAX_NESTING} deep")
        try:
            if _is_sound(bar := _bar_decoder.decode(value), now + AHEAD):
                return bar
        except msgspec.ValidationError:
            pass  # it may still be a bar, with times or a volume written another way
        return _bar(_decoder.decode(value), now)
    except msgspec.ValidationError as error:
        return Rejected(str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Rejected(f"not JSON: {error}")


def _nesting(value: bytes) -> int:
    """How deep arrays and objects are nested in JSON."""
    depth = deepest = 0
    for token in re.findall(rb'"(?:[^"\\]|\\.)*"?|[\[{}\]]', value, re.DOTALL):
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1
    return deepest


def from_fields(fields: Mapping[str, Any], now: dt.datetime) -> Bar | Rejected:
    """The bar of a table's row, by the same rules; numbers and booleans may be text. Keys as in the message."""
    try:
        return _bar(msgspec.convert(fields, _Message, strict=False), now)
    except msgspec.ValidationError as error:
        return Rejected(str(error))


def decode_all(values: Sequence[bytes], now: dt.datetime) -> list[Bar | Rejected]:
    """`decode` of each value; faster where all look like our own: they are then decoded in one call, a line each."""
    lines = b"\n".join(values)
    # The decoder takes `{}{}` on a line for two messages and skips blank lines: line n is surely message n only where each
    # line begins with its only brace.
    if (
        lines.count(b"{") == len(values) == lines.count(b"\n") + 1
        and {value[:1] for value in values} == {b"{"}
        and b"[" not in lines
    ):
        try:
            if not lines.isascii():
                lines.decode()
            bars, latest = _bar_decoder.decode_lines(lines), now + AHEAD
            if _are_sound(bars, latest):
                return [*bars]
            return [bar if _is_sound(bar, latest) else decode(value, now) for bar, value in zip(bars, values, strict=True)]
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # which one it is, and why, is found below
    return [decode(value, now) for value in values]


def _is_sound(bar: Bar, latest: dt.datetime) -> bool:
    """Whether a decoded bar is good as it is: its names can stand, its times are in UTC and believed."""
    start, published = bar.datetime, bar.ingestion_timestamp
    return (
        _is_name(bar.symbol)
        and _is_name(bar.exchange)
        and start.tzinfo is dt.UTC
        and EARLIEST <= start <= latest
        and (published is None or (published.tzinfo is dt.UTC and EARLIEST <= published <= latest))
    )


def _are_sound(bars: Sequence[Bar], latest: dt.datetime) -> bool:
    """Whether all are, in half the time."""
    names = {bar.symbol for bar in bars} | {bar.exchange for bar in bars}
    times = [bar.datetime for bar in bars]
    times += [bar.ingestion_timestamp for bar in bars if bar.ingestion_timestamp is not None]
    return (
        all(map(_is_name, names))
        and {time.tzinfo for time in times} == {dt.UTC}
        and min(times) >= EARLIEST
        and max(times) <= latest
    )


@lru_cache(maxsize=65_536)
def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _bar(message: _Message, now: dt.datetime) -> Bar | Rejected:
    try:
        start = instant(message.datetime)
        published = None if message.ingestion_timestamp is None else instant(message.ingestion_timestamp)
    except ValueError as error:
        return Rejected(str(error))
    for field, time in (("datetime", start), ("ingestion_timestamp", published)):
        if time is not None and not EARLIEST <= time <= now + AHEAD:
            return Rejected(f"{time.isoformat()} is before 1990 or over a day ahead - at `$.{field}`")
    volume = message.volume
    if volume is not None:
        if not 0 <= volume <= MAX_VOLUME or volume != int(volume):
            return Rejected(f"{volume!r} is no whole number from 0 to 2^63-1 - at `$.volume`")
        volume = int(volume)
    return Bar(
        message.symbol,
        message.exchange,
        message.interval,
        start,
        message.open,
        message.high,
        message.low,
        message.close,
        volume,
        published,
        message.source,
        message.is_final,
    )


@lru_cache(maxsize=65_536)  # the bars of a minute share their times
def instant(text: str) -> dt.datetime:
    """An ISO 8601 time as aware UTC; Africa/Cairo where it names no offset. Raises ValueError."""
    try:
        time = dt.datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=CAIRO)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:40]!r} is no ISO 8601 time") from None


def canonical(value: bytes, bar: Bar, arrived: dt.datetime) -> bytes:
    """The message that `bar` was decoded from, as the archive keeps it: on one line, its times in UTC, unknown fields kept.

    `arrived` (aware) stands in for the ingestion time that a foreign producer did not give.
    """
    if bar.ingestion_timestamp is not None and value == _encoder.encode(bar):
        return value
    fields = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    fields["datetime"] = msgspec.Raw(_encoder.encode(bar.datetime))
    fields["ingestion_timestamp"] = msgspec.Raw(_encoder.encode(bar.ingestion_timestamp or arrived))
    fields["volume"] = msgspec.Raw(_encoder.encode(bar.volume))
    # A line break outside of a string is but space, and inside of one JSON has none.
    return _encoder.encode(fields).replace(b"\n", b" ").replace(b"\r", b" ")

from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path
from typing import Any

from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st
from line_protocol_parser import parse_line

from connectors.influxdb import lines
from connectors.kafka import Chunk
from connectors.sqlite import SqliteSink
from dataflows.bar import Bar, encode
from dataflows.live import TABLE, to_points, to_rows
from dataflows.messages import decode
from dataflows.summary import quotes
from tests.dataflows.bars import NAMES, NOW, bar, bars

# The parser takes no subnormal prices, and a first letter that is none for a comment.
PRICES = st.none() | st.floats(1e-300, 1e300)
PLAIN = bars(**dict.fromkeys(("open", "high", "low", "close"), PRICES), symbol=NAMES, exchange=NAMES)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def decoded(*made: Bar) -> Any:
    messages = [Message(topic="t", partition=0, offset=at, value=encode(bar)) for at, bar in enumerate(made)]
    return decode(Chunk("t", 0, messages), "live", NOW)


@given(PLAIN)
def test_a_point_is_the_bar_by_the_contract(bar: Bar) -> None:
    values = {key: getattr(bar, key) for key in ("open", "high", "low", "close", "volume", "is_final")}
    present = {key: value for key, value in values.items() if value is not None}
    points = to_points(decoded(bar))
    assert len(points) == bool(present)
    for point in points:
        read = parse_line(lines([point]).decode())
        assert read["measurement"] == "stock_price"
        assert read["tags"] == {"symbol": bar.symbol, "exchange": bar.exchange, "interval": bar.interval}
        assert read["fields"] == present
        assert {key: type(value) for key, value in read["fields"].items()} == {key: type(value) for key, value in present.items()}
        assert EPOCH + dt.timedelta(microseconds=read["time"]) == bar.datetime
        assert point.origin.offset() == 0


@given(st.lists(bars(source=st.none() | st.text("ab'é\0"))))
def test_a_row_is_the_bar_to_the_last_digit(made: list[Bar]) -> None:
    for one, row in zip(made, to_rows(decoded(*made)), strict=True):
        values = dict(zip(TABLE.columns, row, strict=True))
        assert values == {
            **{key: getattr(one, key) for key in TABLE.columns},
            "datetime": one.datetime.isoformat(),
            "ingestion_timestamp": one.ingestion_timestamp.isoformat() if one.ingestion_timestamp else None,
        }


def test_the_key_of_a_row_is_the_bars_identity() -> None:
    assert list(TABLE.columns)[: TABLE.key] == ["exchange", "symbol", "interval", "datetime"]


def test_an_absent_value_is_absent_and_never_zero(tmp_path: Path) -> None:
    empty = bar(open=None, high=None, low=None, close=None, volume=None, is_final=None)
    (row,) = to_rows(decoded(empty))
    assert row[4:10] == (None,) * 6
    assert to_points(decoded(empty)) == []
    (point,) = to_points(decoded(bar(open=None, volume=None)))
    assert point.fields == b"high=84.0,low=82.75,close=83.9,is_final=false"


def test_the_same_times_are_the_same_row_however_they_are_written(tmp_path: Path) -> None:
    sink = SqliteSink(tmp_path / "live.sqlite", TABLE, stop=threading.Event()).build_part("", "0", None)
    for close, zone in ((1.5, dt.UTC), (2.5, dt.timezone(dt.timedelta(hours=2)))):
        start = bar().datetime.astimezone(zone).isoformat().encode()
        value = encode(bar(close=close)).replace(b"2025-12-07T08:00:00Z", start)
        sink.write_batch([to_rows(decode(Chunk("t", 0, [Message(value=value)]), "live", NOW))])
    (quote,) = quotes(tmp_path / "live.sqlite")
    assert (quote.symbol, quote.close) == ("COMI", 2.5)

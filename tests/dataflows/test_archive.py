from __future__ import annotations

import datetime as dt
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, TIMESTAMP_NOT_AVAILABLE, Message
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from connectors.kafka import Chunk
from connectors.objects import Directory, checked
from connectors.s3 import Bucket
from dataflows.archive import ingested, store, to_pieces
from dataflows.bar import encode
from dataflows.messages import Decoded, decode
from dataflows.settings import S3, Archive, Settings
from tests.dataflows.bars import INSTANTS, NAMES, NOW, bar, bars, message

ARRIVED = int(NOW.timestamp() * 1000)
"""When messages came into Kafka, milliseconds."""
SYMBOLS = NAMES | st.sampled_from([".", "..", "...", "._.", "A.", ".A", "COMI"])


def decoded(messages: list[Message], partition: int = 0) -> Decoded:
    return decode(Chunk("t", partition, messages), "archive", NOW)


def keys(decoded: Decoded, block_messages: int) -> list[tuple[str, int]]:
    """The key of each object, was it begun here, and its lines."""
    return [(f"{piece.folder}/{piece.name}", len(piece.lines)) for piece in to_pieces(block_messages)(decoded)]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), bars(symbol=SYMBOLS, ingestion_timestamp=st.sampled_from([None, NOW, NOW.replace(hour=1)])))
    ),
    st.integers(1, 5),
)
def test_no_two_records_begin_an_object_of_the_same_key(records: list[tuple[int, Any]], block_messages: int) -> None:
    """Each record by itself, so that each begins an object: as cut wherever epochs may end."""
    offsets = dict.fromkeys(range(3), 0)
    made = []
    for partition, record in records:
        at = offsets[partition]
        offsets[partition] += 1
        value = Message(topic="t", partition=partition, offset=at, value=encode(record), timestamp=(1, ARRIVED))
        made += keys(decoded([value], partition), block_messages)
    assert len(made) == len(records)
    assert {lines for _, lines in made} <= {1}
    assert len({key for key, _ in made}) == len(made)


@given(bars(symbol=SYMBOLS), st.integers(0, 2**63 - 1), st.integers(0, 100_000), st.integers(-(2**62), 2**62))
def test_no_key_leaves_the_prefix_and_all_have_one_form(bar: Any, offset: int, partition: int, milliseconds: int) -> None:
    value = Message(topic="t", partition=partition, offset=offset, value=encode(bar), timestamp=(1, milliseconds))
    ((key, _),) = keys(Decoded("t", partition, [(bar, value)], []), 65_536)
    assert checked(key) == key
    assert os.path.normpath(f"/prefix/{key}") == f"/prefix/{key}"
    found = re.fullmatch(r"date=(\d{4}-\d\d-\d\d)/symbol=([A-Z0-9._]{1,20})/(\d{12})-(\d+)-(\d{18,19})\.json", key)
    assert found
    assert (found[2], int(found[4]), int(found[5])) == (bar.symbol, partition, offset)
    dt.datetime.strptime(f"{found[1]} {found[3]}", "%Y-%m-%d %H%M%S%f").replace(tzinfo=dt.UTC)


@given(st.lists(bars(symbol=st.sampled_from(["A", "B"]), ingestion_timestamp=INSTANTS), max_size=12), st.integers(1, 20))
def test_every_record_is_in_one_piece_of_its_day_symbol_and_block(made: list[Any], block_messages: int) -> None:
    messages = [Message(topic="t", partition=3, offset=7 + at, value=encode(bar)) for at, bar in enumerate(made)]
    pieces = to_pieces(block_messages)(decoded(messages, 3))
    assert sorted(line for piece in pieces for line in piece.lines) == sorted(map(encode, made))
    assert [piece.block for piece in pieces] == sorted(piece.block for piece in pieces)
    offsets = {encode(bar): 7 + at for at, bar in reversed(list(enumerate(made)))}
    for piece in pieces:
        assert piece.stream == 3
        for line in piece.lines:
            fields = json.loads(line)
            assert piece.folder == f"date={fields['ingestion_timestamp'][:10]}/symbol={fields['symbol']}"
        if len(set(map(encode, made))) == len(made):
            assert {offsets[line] // block_messages for line in piece.lines} == {piece.block}
            assert f"-3-{offsets[piece.lines[0]]:018d}.json" in piece.name


def test_the_date_is_that_of_ingestion_in_utc_not_the_bars() -> None:
    value = message(datetime="2025-12-01T08:00:00Z", ingestion_timestamp="2025-12-07T01:30:00+02:00")
    ((key, _),) = keys(decoded([Message(partition=0, offset=42, value=value)]), 1000)
    assert key == "date=2025-12-06/symbol=COMI/233000000000-0-000000000000000042.json"


@pytest.mark.parametrize(
    ("kind", "milliseconds", "expected"),
    [
        (TIMESTAMP_CREATE_TIME, 1765100000123, "2025-12-07T09:33:20.123+00:00"),
        (TIMESTAMP_LOG_APPEND_TIME, 1765100000001, "2025-12-07T09:33:20.001+00:00"),
        (TIMESTAMP_NOT_AVAILABLE, 1765100000123, None),
        (TIMESTAMP_CREATE_TIME, 0, None),
        (TIMESTAMP_CREATE_TIME, -1, None),
        (TIMESTAMP_CREATE_TIME, 1765100000123456, None),  # microseconds, from a producer in error
        (TIMESTAMP_CREATE_TIME, 2**63 - 1, None),
    ],
)
def test_without_an_ingestion_time_it_is_kafkas_if_that_can_be_one(kind: int, milliseconds: int, expected: str | None) -> None:
    made = bar(ingestion_timestamp=None)
    at = ingested(made, Message(timestamp=(kind, milliseconds)))
    assert at == (dt.datetime.fromisoformat(expected) if expected else made.datetime)
    assert ingested(bar(), Message(timestamp=(kind, milliseconds))) == bar().ingestion_timestamp


def test_the_archives_line_names_the_time_that_stood_in() -> None:
    value = Message(partition=0, offset=0, value=message(ingestion_timestamp=..., note="kept"), timestamp=(1, 1765100000123))
    (piece,) = to_pieces(10)(decoded([value]))
    kept = json.loads(piece.lines[0])
    assert (kept["ingestion_timestamp"], kept["note"]) == ("2025-12-07T09:33:20.123000Z", "kept")
    assert piece.name.startswith("093320123000-")


def settings(tmp_path: Path, **archive: Any) -> Settings:
    Settings.file = tmp_path / "config.yaml"
    return Settings(archive=Archive(**archive))


def test_an_archive_is_a_folder_from_the_settings_file(tmp_path: Path) -> None:
    made = store(settings(tmp_path, url="a b/archive"))
    assert isinstance(made, Directory)
    made.put("x/1.json", b"x")
    assert (tmp_path / "a b/archive/x/1.json").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("s3://archive", "x/1.json"),
        ("s3://archive/", "x/1.json"),
        ("s3://archive/streaming", "streaming/x/1.json"),
        ("s3://archive/a/b/", "a/b/x/1.json"),
        ("s3://archive/a://b/", "a://b/x/1.json"),
    ],
)
def test_or_a_prefix_of_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, key: str) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        made = store(settings(tmp_path, url=url, s3=S3(region="us-east-1", storage_class="STANDARD_IA")))
        assert isinstance(made, Bucket)
        made.put("x/1.json", b"x")
        head = made._client.head_object(Bucket="archive", Key=key)
        assert head["StorageClass"] == "STANDARD_IA"

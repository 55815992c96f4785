from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import itertools
import json
import resource
import tempfile
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.bar import Bar, encode
from dataflows.settings import Replay, Settings, Source
from dataflows.sources import SourceError
from dataflows.sources.replay import files, poll, read
from tests.dataflows.bars import NOW, bar, bars

DEFAULTS = {"exchange": "EGX", "interval": None, "source": "replay"}
HEADER = "symbol,interval,datetime,open,high,low,close,volume\n"
ROW = "COMI,Daily,2025-12-07T08:00:00Z,83.1,84.0,82.75,83.9,1250000\n"


def write(path: Path, text: str | bytes) -> Path:
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def bars_of(path: Path, **defaults: Any) -> list[Bar]:
    return list(read(path, {**DEFAULTS, **defaults}, NOW))


EXPECTED = bar(ingestion_timestamp=None, source="replay", is_final=True)


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.CSV"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_table_is_read(tmp_path: Path, name: str, bom: str, ends: str) -> None:
    assert bars_of(write(tmp_path / name, (bom + HEADER + ROW).replace("\n", ends))) == [EXPECTED]


@pytest.mark.parametrize("name", ["x.ndjson", "x.jsonl", "x.json", "x.ndjson.gz"])
def test_lines_of_objects_are_read_blank_ones_left_out(tmp_path: Path, name: str) -> None:
    line = json.loads(encode(bar()))
    made = bars_of(write(tmp_path / name, f"{json.dumps(line)}\n\n{json.dumps({**line, 'is_final': None, 'more': [1]})}\n"))
    assert made == [bar(ingestion_timestamp=None), bar(ingestion_timestamp=None, is_final=True)]


def test_the_columns_of_exported_minute_bars_are_read(tmp_path: Path) -> None:
    header = "symbol,ts_utc,ts_cairo,open,high,low,close,volume\n"
    text = header + "COMI,2025-07-20T07:22:00Z,2025-07-20T10:22:00+03:00,89.55,89.6,89.5,89.55,409\n"
    start = dt.datetime(2025, 7, 20, 7, 22, tzinfo=dt.UTC)
    prices = (89.55, 89.6, 89.5, 89.55)
    assert bars_of(write(tmp_path / "x.csv", text), interval="1 Minute") == [
        Bar("COMI", "EGX", "1 Minute", start, *prices, 409, source="replay", is_final=True)
    ]


def test_an_empty_cell_is_absent_and_never_zero(tmp_path: Path) -> None:
    (made,) = bars_of(write(tmp_path / "x.csv", HEADER + "COMI,Daily,2025-12-07,,,,83.9,\n"))
    assert (made.open, made.high, made.low, made.close, made.volume) == (None, None, None, 83.9, None)


def test_a_bar_whose_period_is_not_over_is_not_final(tmp_path: Path) -> None:
    today = NOW.date().isoformat()
    text = HEADER + f"COMI,Daily,{today}T08:00:00Z,1,1,1,1,1\nCOMI,1 Minute,{today}T08:00:00Z,1,1,1,1,1\n"
    assert [made.is_final for made in read(write(tmp_path / "x.csv", text), DEFAULTS, NOW.replace(hour=9))] == [False, True]


@given(st.lists(bars(), max_size=8))
def test_a_message_written_to_a_file_comes_back_as_its_bar(tmp_path: Path, made: list[Bar]) -> None:
    expected = [
        msgspec.structs.replace(one, ingestion_timestamp=None, source=one.source or "replay", is_final=one.is_final)
        for one in made
        if one.is_final is not None
    ]
    lines = b"\n".join(encode(one) for one in made if one.is_final is not None)
    assert bars_of(write(tmp_path / "x.ndjson", lines)) == expected
    table = io.StringIO()
    writer = csv.DictWriter(table, list(json.loads(encode(bar()))))
    writer.writeheader()
    for one in expected:
        values = json.loads(encode(one))
        writer.writerow({key: repr(value) if isinstance(value, float) else value for key, value in values.items()})
    read_back = bars_of(write(tmp_path / "x.csv", table.getvalue()))
    assert read_back == expected


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.csv", HEADER + ROW + ROW.replace("83.1", "many"), ":3: Expected `float | null`, got `str` - at `$.open`"),
        ("x.csv", HEADER + ROW.replace("83.1", "-1"), ":2: Expected `float` > 0.0 - at `$.open`"),
        ("x.csv", HEADER + ROW.replace("83.1", "inf"), ":2: Expected `float` <= "),
        ("x.csv", HEADER + ROW.replace("1250000", "nan"), ":2: nan is no whole number"),
        ("x.csv", HEADER + ROW.replace("1250000", "1.5"), ":2: 1.5 is no whole number"),
        ("x.csv", HEADER + ROW.replace("2025-12-07T08:00:00Z", "7.12.2025"), ":2: '7.12.2025' is no ISO 8601 time"),
        ("x.csv", HEADER + ROW.replace("COMI", "EGX:COMI"), "`$.symbol`"),
        ("x.csv", HEADER + ROW.replace("Daily", ""), ":2: no interval: add such a column, or set source.replay.interval"),
        ("x.csv", HEADER + "COMI,Daily\n", ":2: not as many values as the header has columns"),
        ("x.csv", HEADER + ROW.strip() + ",9\n", ":2: not as many values"),
        ("x.csv", "symbol,interval\nCOMI,Daily\n", ":2: Object missing required field `datetime`"),
        ("x.csv", HEADER + ROW * 2_000 + 'COMI,"Daily"x,\n', ":2002: "),
        ("x.csv", HEADER.encode() + ROW.encode() * 2_000 + b"COMI,\xff\n", ":2002: "),
        ("x.csv.gz", HEADER + ROW * 30 + ROW.replace("83.1", "many"), ":32: "),
        ("x.ndjson", encode(bar()) + b"\n\n{\n", ":3: "),
        ("x.ndjson", encode(bar()) + b"\n[]\n", ":2: Expected `object`"),
        ("x.ndjson", encode(bar()) + b"\n" + encode(bar()).replace(b"83.1", b"0"), ":2: Expected `float` > 0.0"),
        ("x.ndjson", b"\xff", ":1: "),
        ("x.ndjson", b"[" * 100_000, ":1: "),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, name: str, text: str | bytes, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        bars_of(write(tmp_path / name, text))
    assert str(caught.value).startswith(str(tmp_path / name))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: data[:60] + b"XX" + data[62:], lambda data: b"plain text"]
)
def test_a_damaged_gzip_file_is_named(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(damage(gzip.compress((HEADER + "".join(ROW.replace("83.9", f"83.{n}") for n in range(300))).encode())))
    with pytest.raises(SourceError, match=r"x\.csv\.gz:\d+: "):
        bars_of(path)


def test_a_folder_gives_its_files_by_name_and_leaves_out_others(tmp_path: Path) -> None:
    for name in ("b.csv", "a/c.ndjson.gz", "README.md", "a/x.csv.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, "")
    assert [path.relative_to(tmp_path).as_posix() for path in files(tmp_path)] == ["a/c.ndjson.gz", "b.csv"]


@pytest.mark.parametrize(("name", "says"), [("none", "there is no"), ("", "holds no .csv"), ("x.md", "is no .csv")])
def test_a_path_without_bars_is_refused(tmp_path: Path, name: str, says: str) -> None:
    write(tmp_path / "x.md", "")
    with pytest.raises(SourceError, match=says):
        files(tmp_path / name)


def play(tmp_path: Path, stop: threading.Event, **options: Any) -> list[list[Bar]]:
    Settings.file = tmp_path / "config.yaml"
    settings = Settings(source=Source(kind="replay", replay=Replay(path=Path("bars"), **options)))
    return [list(batch) for batch in poll(settings)(stop)]


def minutes(symbol: str, *numbers: int) -> str:
    return HEADER + "".join(f"{symbol},1 Minute,2025-12-07T08:{number:02d}:00Z,1,1,1,1,{number}\n" for number in numbers)


def test_files_are_played_together_in_order_of_time(tmp_path: Path) -> None:
    (tmp_path / "bars").mkdir()
    write(tmp_path / "bars/a.csv", minutes("A", 0, 2, 4))
    write(tmp_path / "bars/b.csv", minutes("B", 1, 2, 3))
    (batch,) = play(tmp_path, threading.Event())
    assert [(one.symbol, one.volume) for one in batch] == [("A", 0), ("B", 1), ("A", 2), ("B", 2), ("B", 3), ("A", 4)]


def test_files_of_other_times_are_not_open_at_once(tmp_path: Path) -> None:
    (tmp_path / "bars").mkdir()
    for number in range(60):
        write(tmp_path / f"bars/{number:02d}.csv", minutes("A", 59 - number))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(list(Path("/proc/self/fd").iterdir())) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        (batch,) = play(tmp_path, threading.Event())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [one.volume for one in batch] == list(range(60))


@given(st.lists(st.lists(st.integers(0, 59), max_size=8).map(sorted), max_size=6))
def test_the_order_is_that_of_times_then_of_files(files_minutes: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        (folder := Path(name) / "bars").mkdir()
        write(folder / "z.csv", minutes("Z", 59))
        for number, held in enumerate(files_minutes):
            write(folder / f"{number}.csv", minutes(f"S{number}", *held))
        (batch,) = play(Path(name), threading.Event())
    expected = sorted([(minute, f"S{number}") for number, held in enumerate(files_minutes) for minute in held])
    assert [(one.volume, one.symbol) for one in batch] == [*expected, (59, "Z")]


def test_at_a_speed_it_waits_between_times_and_stops_when_asked(tmp_path: Path) -> None:
    waited: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0)
            return len(waited) == 3

    (tmp_path / "bars").mkdir()
    write(tmp_path / "bars/a.csv", minutes("A", 0, 1, 5, 6, 7))
    write(tmp_path / "bars/b.csv", minutes("B", 1))
    batches = play(tmp_path, Stop(), speed=60)
    assert waited == [1, 4, 1]
    assert [[one.volume for one in batch] for batch in batches] == [[0], [1, 1], [5]]


def test_following_it_reads_again_and_finds_what_was_added(tmp_path: Path) -> None:
    (tmp_path / "bars").mkdir()
    write(tmp_path / "bars/a.csv", minutes("A", 0))

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout == 7
            added = (tmp_path / "bars/b.csv").exists()
            write(tmp_path / "bars/b.csv", minutes("B", 1))
            return added

    Settings.file = tmp_path / "config.yaml"
    settings = Settings(source=Source(kind="replay", follow=True, poll_seconds=7, replay=Replay(path=Path("bars"))))
    polled = list(itertools.chain(*poll(settings)(Stop())))
    assert [one.symbol for one in polled] == ["A", "A", "B"]


def test_without_a_path_it_says_which_setting(tmp_path: Path) -> None:
    Settings.file = tmp_path / "config.yaml"
    with pytest.raises(SourceError, match=r"source\.replay\.path \(EGX_SOURCE__REPLAY__PATH\)"):
        poll(Settings(source=Source(kind="replay")))

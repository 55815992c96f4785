from __future__ import annotations

import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import PermanentError
from connectors.sqlite import SqliteSink, Table, connect

TABLE = Table("prices", {"symbol": "TEXT", "at": "INTEGER", "price": "REAL", "note": "TEXT"}, key=2)
ROWS = st.tuples(
    st.sampled_from(["A", "B", "a'\"", ""]),
    st.integers(0, 3),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.text("xé\0'\n"),
)


def rows(path: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT * FROM prices ORDER BY symbol, at").fetchall()


@given(st.lists(st.lists(ROWS, max_size=6), max_size=6), st.integers(0, 6))
@settings(max_examples=min(settings.default.max_examples, 200))
def test_the_last_row_of_a_key_wins_and_a_replay_changes_nothing(batches: list[list[tuple[object, ...]]], again: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "live.sqlite"
        SqliteSink(path, TABLE, stop=threading.Event()).build_part("", "0", None).write_batch(batches)
        expected = {row[:2]: row for batch in batches for row in batch}
        assert rows(path) == sorted(expected.values(), key=lambda row: row[:2])
        SqliteSink(path, TABLE, stop=threading.Event()).build_part("", "0", None).write_batch(batches[again:])
        assert rows(path) == sorted(expected.values(), key=lambda row: row[:2])


def test_a_batch_is_durable_when_it_returns_and_counted(tmp_path: Path) -> None:
    counted: list[int] = []
    part = SqliteSink(tmp_path / "x.sqlite", TABLE, stop=threading.Event(), on_written=counted.append).build_part("", "0", None)
    part.write_batch([[("A", 1, 1.0, None)], [], [("A", 2, 1.0, None), ("A", 2, 2.0, None)]])
    assert rows(tmp_path / "x.sqlite") == [("A", 1, 1.0, None), ("A", 2, 2.0, None)]
    assert counted == [3]


def test_a_batch_that_fails_leaves_nothing_of_itself(tmp_path: Path) -> None:
    part = SqliteSink(tmp_path / "x.sqlite", TABLE, stop=threading.Event()).build_part("", "0", None)
    with pytest.raises(PermanentError, match=r"cannot write .*x\.sqlite"):
        part.write_batch([[("A", 1, 1.0, None)], [("A", 2, 1.0)]])
    assert rows(tmp_path / "x.sqlite") == []


def test_others_read_while_it_is_written(tmp_path: Path) -> None:
    part = SqliteSink(tmp_path / "x.sqlite", TABLE, stop=threading.Event()).build_part("", "0", None)
    part.write_batch([[("A", 1, 1.0, None)]])
    reader = sqlite3.connect(tmp_path / "x.sqlite", timeout=0)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM prices").fetchone() == (1,)
    part.write_batch([[("A", 2, 1.0, None)]])
    assert reader.execute("SELECT count(*) FROM prices").fetchone() == (1,)
    reader.rollback()
    assert reader.execute("SELECT count(*) FROM prices").fetchone() == (2,)


def test_it_waits_for_another_writer(tmp_path: Path) -> None:
    part = SqliteSink(tmp_path / "x.sqlite", TABLE, stop=threading.Event()).build_part("", "0", None)
    other = sqlite3.connect(tmp_path / "x.sqlite", check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.2, other.rollback).start()
    part.write_batch([[("A", 1, 1.0, None)]])
    assert rows(tmp_path / "x.sqlite") == [("A", 1, 1.0, None)]


def test_commits_survive_a_power_cut(tmp_path: Path) -> None:
    connection = connect(tmp_path / "x.sqlite")
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("path", ["file/x.sqlite", "file", "folder"])
def test_what_cannot_be_a_database_is_refused_with_its_path(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("neither a database nor a folder" * 100)
    (tmp_path / "folder").mkdir()
    with pytest.raises(PermanentError, match=path):
        SqliteSink(tmp_path / path, TABLE, stop=threading.Event()).build_part("", "0", None)


def test_a_table_of_that_name_with_other_columns_is_refused(tmp_path: Path) -> None:
    connect(tmp_path / "x.sqlite").execute("CREATE VIEW prices AS SELECT 1")
    with pytest.raises(PermanentError, match=r"x\.sqlite"):
        SqliteSink(tmp_path / "x.sqlite", TABLE, stop=threading.Event()).build_part("", "0", None).write_batch(
            [[("A", 1, 1.0, None)]]
        )

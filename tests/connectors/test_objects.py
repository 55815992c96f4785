from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import PermanentError, Stopped, TransientError
from connectors.objects import Directory, ObjectSink, ObjectStore, Piece, checked


class Memory:
    """A store that fails as it is told to."""

    def __init__(self, *failures: Exception) -> None:
        self.held: dict[str, bytes] = {}
        self.failures = list(failures)
        self.puts: list[str] = []

    def put(self, key: str, body: bytes) -> None:
        self.puts.append(key)
        if self.failures:
            raise self.failures.pop(0)
        self.held[key] = body


def partition(store: ObjectStore, **options: Any) -> Any:
    return ObjectSink(lambda: store, **{"stop": threading.Event(), **options}).build_part("", "0", None)


def piece(folder: str, block: int, name: str, *lines: bytes, stream: int = 0) -> Piece:
    return Piece(folder, stream, block, name, list(lines))


def test_an_epoch_makes_one_object_a_folder_and_stream_named_by_its_first_piece() -> None:
    store = Memory()
    part = partition(store)
    part.write_batch([[piece("a", 0, "1", b"x"), piece("b", 0, "2", b"y")], [piece("a", 0, "3", b"z", b"z")]])
    part.write_batch([[piece("a", 0, "9", b"q", stream=1)]])
    assert store.held == {}
    part.snapshot()
    assert store.held == {"a/1": b"x\nz\nz\n", "b/2": b"y\n", "a/9": b"q\n"}
    part.write_batch([[piece("a", 0, "4", b"w")]])
    part.snapshot()
    assert store.held["a/4"] == b"w\n"
    assert len(store.puts) == 4


def test_an_object_ends_with_its_block_and_is_put_while_the_next_is_read() -> None:
    counted: list[int] = []
    go_on = threading.Event()

    class Slow(Memory):
        def put(self, key: str, body: bytes) -> None:
            assert go_on.wait(30)
            super().put(key, body)

    store = Slow()
    part = partition(store, on_written=counted.append)
    part.write_batch([[piece("a", 0, "1", b"x"), piece("a", 1, "2", b"y")], [piece("a", 0, "3", b"z", stream=1)]])
    assert store.held == {}
    go_on.set()
    part.write_batch([[piece("a", 2, "4", b"w")]])
    assert store.held["a/1"] == b"x\n"  # waited for, so that memory holds two blocks of a stream at most
    part.snapshot()
    assert store.held == {"a/1": b"x\n", "a/2": b"y\n", "a/3": b"z\n", "a/4": b"w\n"}
    assert sum(counted) == 4


@pytest.mark.parametrize("later", [lambda part: part.snapshot(), lambda part: part.write_batch([[piece("a", 2, "3", b"z")]])])
def test_a_block_that_could_not_be_put_fails_what_comes_next(later: Callable[[Any], None]) -> None:
    part = partition(Memory(PermanentError("no")))
    part.write_batch([[piece("a", 0, "1", b"x"), piece("a", 1, "2", b"y")]])
    with pytest.raises(PermanentError, match="no"):
        later(part)


def test_lines_are_counted_when_they_are_durable() -> None:
    counted: list[int] = []
    part = partition(Memory(), on_written=counted.append)
    part.write_batch([[piece("a", 0, "1", b"x", b"y"), piece("b", 0, "2", b"y")]])
    assert counted == []
    part.snapshot()
    assert counted == [3]


def test_an_epoch_without_lines_puts_nothing() -> None:
    store = Memory()
    partition(store).snapshot()
    assert store.puts == []


def test_what_fails_in_passing_is_put_again() -> None:
    store = Memory(TransientError("busy"), TransientError("busy", retry_after=0.01))
    part = partition(store, parallel=1)
    part.write_batch([[piece("a", 0, "1", b"x"), piece("b", 0, "2", b"y")]])
    part.snapshot()
    assert store.held == {"a/1": b"x\n", "b/2": b"y\n"}
    assert len(store.puts) == 4


@pytest.mark.parametrize("error", [PermanentError("refused"), ZeroDivisionError("defect")])
def test_a_put_that_fails_fails_the_epoch(error: Exception) -> None:
    counted: list[int] = []
    part = partition(Memory(error), on_written=counted.append)
    part.write_batch([[piece("a", 0, "1", b"x"), piece("b", 0, "2", b"y")]])
    with pytest.raises(type(error), match=str(error)):
        part.snapshot()
    assert counted == []


def test_time_is_up_or_asked_to_end_fails_the_epoch() -> None:
    part = partition(Memory(*[TransientError("away")] * 1_000), retry_seconds=0.05)
    part.write_batch([[piece("a", 0, "1", b"x")]])
    with pytest.raises(TransientError, match="away"):
        part.snapshot()
    stop = threading.Event()
    stop.set()
    part = partition(Memory(TransientError("away", retry_after=60)), stop=stop)
    part.write_batch([[piece("a", 0, "1", b"x")]])
    with pytest.raises(Stopped):
        part.snapshot()


def test_a_store_that_is_away_at_the_start_is_waited_for() -> None:
    stores: list[Callable[[], ObjectStore]] = []
    away = [TransientError("away", retry_after=0.01)] * 2
    store = Memory()

    def opened() -> ObjectStore:
        stores.append(opened)
        if away:
            raise away.pop()
        return store

    ObjectSink(opened, stop=threading.Event()).build_part("", "0", None)
    assert len(stores) == 3


def test_objects_are_put_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=10)

    class Meeting(Memory):
        def put(self, key: str, body: bytes) -> None:
            together.wait()
            super().put(key, body)

    store = Meeting()
    part = partition(store, parallel=4)
    part.write_batch([[piece(str(number), 0, "1", b"x") for number in range(4)]])
    part.snapshot()
    assert len(store.held) == 4


# keys

PARTS = st.text(st.sampled_from("aA0.=-_/\\\0\n\r %é"), max_size=6)


@given(st.lists(PARTS, min_size=1, max_size=4).map("/".join))
def test_no_key_leaves_the_stores_folder(key: str) -> None:
    root = "/archive/streaming"
    try:
        path = os.path.normpath(f"{root}/{checked(key)}")
    except PermanentError:
        assert any(part in ("", ".", "..") for part in key.split("/")) or any(c in key for c in "\\\0\n\r")
    else:
        assert path == f"{root}/{key}"


@pytest.mark.parametrize("key", ["", "/x", "x/", "../x", "a/../b", "a/./b", "a//b", "a\\..\\b", "a\nb", "a\0b"])
def test_a_key_that_would_leave_it_or_break_a_line_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no object key"):
        Directory(tmp_path).put(key, b"x")
    assert list(tmp_path.iterdir()) == []


# a directory


def test_a_directory_holds_whole_objects_and_nothing_else(tmp_path: Path) -> None:
    store = Directory(tmp_path / "new" / "archive")
    store.put("date=2025-12-07/symbol=COMI/1.json", b"x\n")
    store.put("date=2025-12-07/symbol=COMI/1.json", b"y\n")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "new/archive/date=2025-12-07/symbol=COMI/1.json"
    ]
    assert (tmp_path / "new/archive/date=2025-12-07/symbol=COMI/1.json").read_bytes() == b"y\n"


def test_an_object_is_seen_whole_or_not_at_all_and_synced_before_it_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        steps.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        steps.append(f"rename {path.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    Directory(tmp_path).put("a/b/1.json", b"x")
    made = ["sync folder", "sync folder"]  # those that hold the new folders
    assert steps == [*made, "sync file", "rename .1.json.tmp", "sync folder"]
    steps.clear()
    Directory(tmp_path).put("a/b/2.json", b"x")
    assert steps == ["sync file", "rename .2.json.tmp", "sync folder"]


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/.1.json.tmp").write_bytes(b"half a li")
    Directory(tmp_path).put("a/1.json", b"x\n")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["1.json"]


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, TransientError, "No space left on device: make space"),
        (errno.EDQUOT, TransientError, "make space"),
        (errno.EIO, TransientError, "Input/output error"),
        (errno.EACCES, PermanentError, "Permission denied: give this user the permission"),
        (errno.EROFS, PermanentError, "Read-only file system: give this user the permission"),
        (errno.ENAMETOOLONG, PermanentError, "name too long"),
    ],
)
def test_what_somebody_may_mend_meanwhile_is_tried_again_and_else_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], says: str
) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(kind, match=says) as caught:
        Directory(tmp_path).put("a/1.json", b"x")
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "a/1.json").exists()

"""Output as objects of lines in a store: a local directory here, S3 in connectors/s3.py."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from typing_extensions import override

from connectors.errors import PermanentError, TransientError
from connectors.retrying import Retry


class Piece(NamedTuple):
    """Lines that belong into one object, in order.

    :arg folder: where the object goes, below the store's prefix.
    :arg stream: what the lines were read from, such as a Kafka partition.
    :arg block: which block of the stream they are from; it never goes down within a stream.
    :arg name: the object's name, should this piece be the first of it; derived from the piece's first line alone.
    :arg lines: without line ends.
    """

    folder: str
    stream: int
    block: int
    name: str
    lines: Sequence[bytes]


class ObjectStore(Protocol):
    """Where objects go."""

    def put(self, key: str, body: bytes) -> None:
        """Writes a whole object, durably, over any of that key. Raises TransientError and PermanentError."""


class ReadableStore(Protocol):
    """Where objects can be read back from."""

    def keys(self, after: str = "") -> Iterator[str]:
        """The keys greater than one, in their order. Raises TransientError and PermanentError."""

    def folders(self, folder: str = "") -> list[str]:
        """The names of what is directly below a folder and holds objects, in order. Raises TransientError and PermanentError."""

    def get(self, key: str) -> bytes:
        """A whole object. Raises TransientError and PermanentError."""


def checked(key: str) -> str:
    """The key, if it stays below the store's prefix whatever it was made from. Raises PermanentError."""
    if any(part in ("", ".", "..") for part in key.split("/")) or any(c in key for c in "\\\0\n\r"):
        raise PermanentError(f"{key!r} is no object key: it has an empty part, '.', '..', a backslash or a control character")
    return key


# Somebody may make space, close files, bring the disk back.
_PASSING: Final = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN}


class Directory:
    """Objects as files: written under a temporary name, synced, renamed, so that a reader sees a whole one or none."""

    def __init__(self, root: Path) -> None:
        """Makes the folder. Raises PermanentError where it may not be made or written."""
        self._root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PermanentError(f"cannot make the folder {root}: {error.strerror}: set archive.url to one that can be") from None
        if not os.access(root, os.W_OK | os.X_OK):
            raise PermanentError(f"may not write into {root}: give this user the permission, or set archive.url")

    def put(self, key: str, body: bytes) -> None:
        path = self._root / checked(key)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            self._make(path.parent)
            with temporary.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
            _sync(path.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)  # it may be what fills the disk
            text = f"cannot write {error.filename or path}: {error.strerror}"
            if error.errno in _PASSING:
                raise TransientError(f"{text}: make space, or set archive.url") from None
            raise PermanentError(f"{text}: give this user the permission, or set archive.url") from None

    def keys(self, after: str = "") -> Iterator[str]:
        def below(folder: Path) -> Iterator[str]:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    key = Path(entry.path).relative_to(self._root).as_posix()
                    if entry.is_dir():
                        if key >= after[: len(key)]:
                            yield from below(Path(entry.path))
                    elif key > after and not entry.name.startswith("."):
                        yield key

        if self._root.is_dir():
            yield from below(self._root)

    def folders(self, folder: str = "") -> list[str]:
        path = self._root / folder
        return sorted(entry.name for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []

    def get(self, key: str) -> bytes:
        path = self._root / checked(key)
        try:
            return path.read_bytes()
        except OSError as error:
            raise PermanentError(f"cannot read {path}: {error.strerror}") from None

    def _make(self, folder: Path) -> None:
        """Makes a folder and those above it, so that a power cut does not take them back."""
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            _sync(folder.parent)


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class _Block:
    """The open objects of one stream: folder -> (name, lines)."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.objects: dict[str, tuple[str, list[bytes]]] = {}

    def add(self, piece: Piece) -> None:
        _, lines = self.objects.setdefault(piece.folder, (piece.name, []))
        lines.extend(piece.lines)


class _ObjectsPartition(StatefulSinkPartition[Sequence[Piece], None]):
    def __init__(self, store: ObjectStore, parallel: int, retry: Retry, on_written: Callable[[int], None]) -> None:
        self._store, self._retry, self._on_written = store, retry, on_written
        self._blocks: dict[int, _Block] = {}
        self._underway: list[Future[int]] = []
        """Puts of blocks that are complete."""
        self._pool = ThreadPoolExecutor(parallel, thread_name_prefix="put")

    @override
    def write_batch(self, values: list[Sequence[Piece]]) -> None:
        for pieces in values:
            for piece in pieces:
                block = self._blocks.get(piece.stream)
                if block is None or block.number != piece.block:
                    if block is not None:
                        self._finish()  # of what is complete, one block at a time is kept
                        self._put(block)
                    block = self._blocks[piece.stream] = _Block(piece.block)
                block.add(piece)

    @override
    def snapshot(self) -> None:
        for block in self._blocks.values():
            self._put(block)
        self._blocks = {}
        self._finish()
        return

    def _put(self, block: _Block) -> None:
        """Begins to put a block's objects, while the flow goes on."""
        self._underway += [self._pool.submit(self._put_one, folder, *of) for folder, of in block.objects.items()]

    def _put_one(self, folder: str, name: str, lines: list[bytes]) -> int:
        body = b"\n".join(lines) + b"\n"
        self._retry(lambda: self._store.put(f"{folder}/{name}", body))
        return len(lines)

    def _finish(self) -> None:
        """Waits until what is under way is durable; raises what a put raised."""
        underway, self._underway = self._underway, []
        self._on_written(sum(put.result() for put in underway))

    @override
    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class ObjectSink(FixedPartitionedSink[Sequence[Piece], None]):
    """One object for each folder, stream and epoch, or, where an epoch spans several blocks of a stream, each block.

    Delivery: durable at the end of the epoch (`snapshot`); a block that has ended is put while the next is read. Exactly once in
    effect, if the input replays at most the one epoch that was not committed, from where it began: an object is named by its
    first line, and objects are cut at the ends of blocks and of epochs only. A replay starts with the same line and so writes
    the same first object, a block begins with the same line in every run, and so whatever a replay writes lies over what was
    there. (Were objects cut after a number of lines, a replay whose epochs end elsewhere would cut elsewhere, and leave lines
    in two objects.)

    Memory: the lines of one block of each stream, and of one more that is being put. Items are (the number of a partition,
    pieces); all pieces of a stream belong to one partition.
    """

    def __init__(
        self,
        store: Callable[[], ObjectStore],
        *,
        stop: threading.Event,
        partitions: int = 1,
        parallel: int = 16,
        retry_seconds: float = 300,
        on_written: Callable[[int], None] = lambda lines: None,
        on_retry: Callable[[], None] = lambda: None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """
        :arg store: opens the store; called when the flow starts.
        :arg partitions: sink partitions, the unit of parallelism.
        :arg parallel: objects put at the same time.
        :arg retry_seconds: how long a put is tried again before the flow fails.
        :arg on_written: called with the number of lines that have become durable.
        :arg on_retry: called before each further attempt at a put.
        :arg extra: see `Retry`.
        """
        self._store, self._partitions, self._parallel = store, partitions, parallel
        self._stop, self._retry_seconds, self._on_written = stop, retry_seconds, on_written
        self._on_retry, self._extra = on_retry, extra

    @override
    def list_parts(self) -> list[str]:
        return [str(partition) for partition in range(self._partitions)]

    @override
    def part_fn(self, item_key: str) -> int:
        return int(item_key)

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _ObjectsPartition:
        retry = Retry(self._retry_seconds, self._stop, on_retry=self._on_retry, extra=self._extra)
        return _ObjectsPartition(retry(self._store), self._parallel, retry, self._on_written)

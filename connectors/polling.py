"""Input from anything that is polled: a generator of batches runs in a thread of its own, so that the flow never waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from typing_extensions import override

X = TypeVar("X")

Poll = Callable[[threading.Event], Iterator[Sequence[X]]]
"""Yields batches until it has no more or the event is set; it may wait as it likes, on that event."""

_END = object()


class _PollPartition(StatefulSourcePartition[tuple[str, Sequence[X]], None], Generic[X]):
    def __init__(self, source: PollingSource[X]) -> None:
        self._source = source
        self._batches: queue.Queue[object] = queue.Queue(source.capacity)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source.poll,), name="poll", daemon=True)
        self._thread.start()

    def _run(self, poll: Poll[X]) -> None:
        end: object = _END
        try:
            for batch in poll(self._source.stop):
                if batch and not self._put(batch):
                    return
        except BaseException as error:  # handed to the flow, which raises it
            end = error
        self._put(end)

    def _put(self, item: object) -> bool:
        while not self._closed.is_set():
            try:
                self._batches.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    @override
    def next_batch(self) -> list[tuple[str, Sequence[X]]]:
        source = self._source
        if not source.stop.is_set() and not source.ready():
            return []
        try:
            wait = source.wait_seconds
            batch = _END if source.stop.is_set() else self._batches.get(wait > 0, wait or None)
        except queue.Empty:
            return []
        if batch is _END:
            source.on_end()
            raise StopIteration
        if isinstance(batch, BaseException):
            raise batch
        source.on_batch(batch)  # type: ignore[arg-type]  # all else in the queue is a batch
        return [("0", batch)]  # type: ignore[list-item]

    @override
    def next_awake(self) -> datetime | None:
        source = self._source
        if source.ready() and (source.wait_seconds or not self._batches.empty()):
            return None
        return datetime.now(UTC) + source.idle

    @override
    def snapshot(self) -> None:
        return None

    @override
    def close(self) -> None:
        self._closed.set()


class PollingSource(FixedPartitionedSource[tuple[str, Sequence[X]], None], Generic[X]):
    """Items are batches as the poll yields them, keyed "0".

    Delivery: none of its own; a batch that the flow had not finished when the process died is gone, and comes again only if
    the poll yields it again. One thread in all, however many workers there are. An exception of the poll ends the flow.
    """

    def __init__(
        self,
        poll: Poll[X],
        *,
        stop: threading.Event,
        ready: Callable[[], bool] = lambda: True,
        on_batch: Callable[[Sequence[X]], None] = lambda batch: None,
        on_end: Callable[[], None] = lambda: None,
        capacity: int = 8,
        idle: timedelta = timedelta(milliseconds=20),
        wait_seconds: float = 0,
    ) -> None:
        """
        :arg poll: the generator function, see `Poll`.
        :arg stop: when set, the source ends.
        :arg ready: false holds batches back (the flow goes on around it).
        :arg on_batch: called with each batch that goes into the flow, before it does.
        :arg on_end: called when no more will: the poll has ended, or `stop` is set (what then waits is dropped).
        :arg capacity: batches that may wait for the flow.
        :arg idle: how long to wait when there is none.
        :arg wait_seconds: how long a call may itself wait for a batch, in place of `idle`: sooner and cheaper where nothing else
            runs on its thread, which it holds up.
        """
        self.poll, self.stop, self.ready, self.capacity, self.idle = poll, stop, ready, capacity, idle
        self.on_batch, self.on_end, self.wait_seconds = on_batch, on_end, wait_seconds

    @override
    def list_parts(self) -> list[str]:
        return ["0"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _PollPartition[X]:
        return _PollPartition(self)

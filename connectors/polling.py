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
    def __init__(self, poll: Poll[X], capacity: int, ready: Callable[[], bool], idle: timedelta, stop: threading.Event) -> None:
        self._batches: queue.Queue[object] = queue.Queue(capacity)
        self._ready, self._idle, self._stop = ready, idle, stop
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(poll,), name="poll", daemon=True)
        self._thread.start()

    def _run(self, poll: Poll[X]) -> None:
        end: object = _END
        try:
            for batch in poll(self._stop):
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
        if self._stop.is_set():
            raise StopIteration
        if not self._ready():
            return []
        try:
            batch = self._batches.get_nowait()
        except queue.Empty:
            return []
        if batch is _END:
            raise StopIteration
        if isinstance(batch, BaseException):
            raise batch
        return [("0", batch)]  # type: ignore[list-item]  # all else in the queue is a batch

    @override
    def next_awake(self) -> datetime | None:
        return None if self._ready() and not self._batches.empty() else datetime.now(UTC) + self._idle

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
        capacity: int = 8,
        idle: timedelta = timedelta(milliseconds=20),
    ) -> None:
        """
        :arg poll: the generator function, see `Poll`.
        :arg stop: when set, the source ends.
        :arg ready: false holds batches back (the flow goes on around it).
        :arg capacity: batches that may wait for the flow.
        :arg idle: how long to wait when there is none.
        """
        self._poll, self._capacity, self._ready, self._idle, self._stop = poll, capacity, ready, idle, stop

    @override
    def list_parts(self) -> list[str]:
        return ["0"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _PollPartition[X]:
        return _PollPartition(self._poll, self._capacity, self._ready, self._idle, self._stop)

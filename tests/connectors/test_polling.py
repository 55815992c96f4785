from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main

from connectors.polling import Poll, PollingSource


def source(poll: Poll[int], **options: Any) -> PollingSource[int]:
    return PollingSource(poll, **{"stop": threading.Event(), "idle": timedelta(milliseconds=1), **options})


def drained(part: Any, seconds: float = 10) -> list[Sequence[int]]:
    """All batches until the source ends."""
    batches: list[Sequence[int]] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            batches += [batch for _, batch in part.next_batch()]
        except StopIteration:
            return batches
    pytest.fail("the source does not end")


def three(stop: threading.Event) -> Iterator[Sequence[int]]:
    yield [1, 2]
    yield []
    yield [3]


def test_batches_come_in_order_then_it_ends() -> None:
    got: list[tuple[str, Sequence[int]]] = []
    flow = Dataflow("f")
    op.output("out", op.input("in", flow, source(three)), TestingSink(got))
    run_main(flow)
    assert got == [("0", [1, 2]), ("0", [3])]


def test_it_tells_of_batches_and_of_its_end() -> None:
    told: list[object] = []
    part = source(three, on_batch=told.append, on_end=lambda: told.append("end")).build_part("", "0", None)
    drained(part)
    assert told == [[1, 2], [3], "end"]


def test_the_flow_never_waits_for_a_poll() -> None:
    release = threading.Event()

    def slow(stop: threading.Event) -> Iterator[Sequence[int]]:
        release.wait(30)
        yield [1]

    part = source(slow).build_part("", "0", None)
    started = time.monotonic()
    assert [part.next_batch() for _ in range(100)] == [[]] * 100
    assert part.next_awake() > datetime.now(UTC) - timedelta(seconds=1)
    assert time.monotonic() - started < 5
    release.set()
    assert drained(part) == [[1]]


def test_where_it_may_wait_a_call_ends_with_the_first_batch() -> None:
    release = threading.Event()

    def slow(stop: threading.Event) -> Iterator[Sequence[int]]:
        release.wait(30)
        yield [1]

    part = source(slow, wait_seconds=0.05).build_part("", "0", None)
    assert part.next_batch() == []
    assert part.next_awake() is None
    part = source(slow, wait_seconds=30).build_part("", "0", None)
    threading.Timer(0.1, release.set).start()
    assert part.next_batch() == [("0", [1])]


def test_an_error_of_the_poll_ends_the_flow_with_it_after_what_came_before() -> None:
    def failing(stop: threading.Event) -> Iterator[Sequence[int]]:
        yield [1]
        raise LookupError("no such symbol")

    told: list[Sequence[int]] = []
    with pytest.raises(LookupError, match="no such symbol"):
        drained(source(failing, on_batch=told.append).build_part("", "0", None))
    assert told == [[1]]


def test_stop_ends_it_though_the_poll_hangs_and_batches_wait() -> None:
    stop, hang, ended = threading.Event(), threading.Event(), threading.Event()

    def hanging(stop: threading.Event) -> Iterator[Sequence[int]]:
        yield [1]
        yield [2]
        hang.wait(60)

    part = source(hanging, stop=stop, on_end=ended.set).build_part("", "0", None)
    until = time.monotonic() + 10
    while not part.next_batch():
        assert time.monotonic() < until
    stop.set()
    with pytest.raises(StopIteration):
        part.next_batch()
    assert ended.is_set()
    hang.set()


def test_the_poll_is_given_the_event_that_ends_it() -> None:
    stop = threading.Event()
    asked = threading.Event()

    def until_stopped(given: threading.Event) -> Iterator[Sequence[int]]:
        yield [1]
        given.wait(60)
        asked.set()

    part = source(until_stopped, stop=stop).build_part("", "0", None)
    stop.set()
    assert asked.wait(10)
    part.close()


def test_while_not_ready_batches_are_held_back() -> None:
    ready = threading.Event()
    part = source(three, ready=ready.is_set).build_part("", "0", None)
    assert [part.next_batch() for _ in range(1_000)] == [[]] * 1_000
    ready.set()
    assert drained(part) == [[1, 2], [3]]


def test_no_more_batches_wait_than_there_is_room_for() -> None:
    polled = 0

    def counting(stop: threading.Event) -> Iterator[Sequence[int]]:
        nonlocal polled
        for polled in range(1, 100):
            yield [polled]

    part = source(counting, capacity=3).build_part("", "0", None)
    until = time.monotonic() + 10
    while polled < 4:
        assert time.monotonic() < until
    assert not part._thread.join(0.3)
    assert polled == 4  # three wait, one is in the poll's hand
    assert drained(part) == [[number] for number in range(1, 100)]


def test_closed_its_thread_ends() -> None:
    def endless(stop: threading.Event) -> Iterator[Sequence[int]]:
        while True:
            yield [1]

    part = source(endless, capacity=1).build_part("", "0", None)
    part.close()
    part._thread.join(10)
    assert not part._thread.is_alive()

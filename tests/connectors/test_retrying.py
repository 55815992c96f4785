from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from connectors.errors import PermanentError, Stopped, TransientError
from connectors.retrying import Retry


class Waits(threading.Event):
    """Notes how long it was asked to wait, and waits not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return self.is_set()


def failing(*errors: Exception) -> Callable[[], str]:
    """Raises the errors, one a call, then gives "done"."""
    left: Iterator[Exception] = iter(errors)

    def call() -> str:
        for error in left:
            raise error
        return "done"

    return call


def test_it_calls_again_until_it_works() -> None:
    waits = Waits()
    assert Retry(60, waits)(failing(*[TransientError("away")] * 3)) == "done"
    assert len(waits.seconds) == 3


def test_waits_grow_are_spread_and_have_a_limit() -> None:
    waits = Waits()
    Retry(60, waits, first_wait=1, longest_wait=4)(failing(*[TransientError("away")] * 200))
    assert max(waits.seconds[:1]) <= 1
    assert all(0 <= wait <= 4 for wait in waits.seconds)
    assert max(waits.seconds) > 2
    assert len(set(waits.seconds)) > 100


def test_the_wait_that_the_other_side_names_is_kept() -> None:
    waits = Waits()
    Retry(60, waits, longest_wait=1)(failing(TransientError("busy", retry_after=7), TransientError("busy")))
    assert waits.seconds[0] == 7
    assert waits.seconds[1] <= 1


def test_a_permanent_failure_is_raised_at_once() -> None:
    waits = Waits()
    with pytest.raises(PermanentError, match="refused"):
        Retry(60, waits)(failing(PermanentError("refused")))
    assert waits.seconds == []


def test_a_defect_is_raised_at_once() -> None:
    with pytest.raises(ZeroDivisionError):
        Retry(60, Waits())(failing(ZeroDivisionError()))


def test_when_time_is_up_the_last_failure_is_raised() -> None:
    started = time.monotonic()
    with pytest.raises(TransientError, match="away"):
        Retry(0.3, threading.Event(), first_wait=0.05, longest_wait=0.05)(failing(*[TransientError("away")] * 1_000))
    assert 0.3 <= time.monotonic() - started < 5


def test_asked_to_end_it_waits_no_longer() -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Stopped, match="comes again at the next start"):
        Retry(60, stop)(failing(TransientError("busy", retry_after=60)))
    assert time.monotonic() - started < 10

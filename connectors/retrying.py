"""Trying again what fails in passing: backoff with jitter, the other side's wait where it names one, an end to it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

import tenacity

from connectors.errors import Stopped, TransientError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Retry:
    """Calls again on TransientError until it works, `seconds` have passed, or the process is asked to end."""

    def __init__(
        self,
        seconds: float,
        stop: threading.Event,
        *,
        on_retry: Callable[[], None] = lambda: None,
        extra: Mapping[str, object] | None = None,
        first_wait: float = 0.2,
        longest_wait: float = 15.0,
    ) -> None:
        """
        :arg on_retry: called before each further attempt.
        :arg extra: what the log's records of these attempts have besides, such as the leg.
        """
        self._stop, self._on_retry, self._extra = stop, on_retry, extra
        self._backoff = tenacity.wait_random_exponential(multiplier=first_wait, max=longest_wait)
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_delay(seconds),
            wait=self._wait,
            sleep=self._sleep,
            before_sleep=self._tell,
            reraise=True,
        )

    def __call__(self, call: Callable[[], T]) -> T:
        """The call's result. Raises its TransientError when time is up, Stopped when asked to end, any other at once."""
        return self._retrying(call)

    def _tell(self, state: tenacity.RetryCallState) -> None:
        self._on_retry()
        log.warning("%s; attempt %s", _error(state), state.attempt_number + 1, extra=self._extra)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        asked = getattr(_error(state), "retry_after", None)
        return max(asked or 0.0, self._backoff(state))

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped("asked to end while a store did not answer: what it did not take comes again at the next start")


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None

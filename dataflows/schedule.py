"""When to poll: while the exchange is open, once before and after, until all is there; by a calendar and a clock passed in."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from dataflows.bar import CAIRO
from dataflows.calendar import DAY, Calendar, Session

LONGEST_WAIT: Final = 60.0  # seconds; then the clock is read again, which a suspended machine's has jumped
REPEATED_FOR: Final = dt.timedelta(hours=1)  # the poll after the close, where it did not get all


class Clock(Protocol):
    """What time it is, and waiting for it to pass."""

    def now(self) -> dt.datetime:
        """The time, aware."""

    def wait(self, seconds: float) -> bool:
        """Waits; true as soon as the process is asked to end."""


class SystemClock:
    """The machine's clock; `stop` ends a wait."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    def wait(self, seconds: float) -> bool:
        return self._stop.wait(seconds)


@dataclass(frozen=True)
class Schedule:
    """Every `every` from a session's opening until its close, `before_open` its opening once and `after_close` its close once.

    Where that last poll did not get all, it is repeated every `every`, for an hour.
    `always`: every `every`, whatever the calendar says.
    """

    calendar: Calendar
    every: dt.timedelta
    before_open: dt.timedelta
    after_close: dt.timedelta
    always: bool = False

    def moments(self, session: Session) -> Iterator[dt.datetime]:
        """A session's polls, in order."""
        yield session.open - self.before_open
        at = session.open
        while at < session.close:
            yield at
            at += self.every
        yield session.close + self.after_close

    def just_over(self, now: dt.datetime) -> Session | None:
        """The session whose poll after the close is due at `now`, or was less than an hour ago."""
        session = self.calendar.last_over(now)
        since = now - session.close - self.after_close
        return session if dt.timedelta(0) <= since < REPEATED_FOR else None

    def due(self, last: dt.datetime | None, now: dt.datetime, whole: bool = True) -> dt.datetime:
        """When the next poll begins, given when the last one did (None: never, so now), and whether it got all."""
        if last is None:
            return now
        again = last + self.every
        if self.always or (not whole and self.just_over(last) and self.just_over(again)):
            return again
        date = last.astimezone(CAIRO).date() - DAY  # a session's last poll may fall into the next day
        sessions = self.calendar.sessions(date, date + dt.timedelta(days=366))
        return next(moment for session in sessions for moment in self.moments(session) if moment > last)


def polls(schedule: Schedule, clock: Clock, whole: Callable[[], bool] = lambda: True) -> Iterator[dt.datetime]:
    """Yields the time at the start of each poll, the first at once, until the process is asked to end.

    A poll that took longer than the time to the next is followed by one poll, not by those it missed.

    :arg whole: whether the last poll got all.
    """
    last: dt.datetime | None = None
    while True:
        now = clock.now()
        left = (schedule.due(last, now, whole()) - now).total_seconds()
        if left <= 0:
            last = now
            yield now
        if clock.wait(min(max(left, 0.0), LONGEST_WAIT)):
            return

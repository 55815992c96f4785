"""The exchange's calendar for the stream: sessions, their hours, and when a bar's period is over.

Its facts are the warehouse's seeds (dated hours and closures), so that stream and warehouse never disagree.
"""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from dataflows.bar import CAIRO, Interval

SEEDS: Final = Path(__file__).resolve().parent.parent / "warehouse" / "seeds"
MINUTES: Final[dict[Interval, int]] = {"1 Minute": 1, "5 Minute": 5, "30 Minute": 30}
_SUNDAY_TO_THURSDAY: Final = (6, 0, 1, 2, 3)  # datetime.date.weekday()


class Hours(NamedTuple):
    """Trading hours (Africa/Cairo) of the dates from `first` to `last`."""

    first: dt.date
    last: dt.date
    ramadan: bool
    open: dt.time
    close_continuous: dt.time
    auction_end: dt.time
    close: dt.time


class Session(NamedTuple):
    """One trading day; its times are aware and in UTC, `close` is the first instant after it."""

    date: dt.date
    open: dt.datetime
    close_continuous: dt.datetime
    auction_end: dt.datetime
    close: dt.datetime


class Calendar:
    """Sunday to Thursday but for the closures, by dated hours; Ramadan's hours go before the regular ones."""

    def __init__(self, hours: list[Hours], closures: frozenset[dt.date]) -> None:
        self._hours = sorted(hours, key=lambda h: (not h.ramadan, h.first))
        self._closures = closures

    @lru_cache(maxsize=8192)  # noqa: B019 - there is one calendar a process
    def session(self, date: dt.date) -> Session | None:
        """The session of a date in Cairo, None where there is none (also before the first known hours)."""
        if date.weekday() not in _SUNDAY_TO_THURSDAY or date in self._closures:
            return None
        for hours in self._hours:
            if hours.first <= date <= hours.last:
                times = (hours.open, hours.close_continuous, hours.auction_end, hours.close)
                return Session(date, *(dt.datetime.combine(date, t, CAIRO).astimezone(dt.UTC) for t in times))
        return None

    def sessions_back(self, date: dt.date) -> Iterator[Session]:
        """The sessions from a date into the past, newest first."""
        while date.year > 2014:
            if session := self.session(date):
                yield session
            date -= dt.timedelta(days=1)

    def last_over(self, now: dt.datetime) -> Session:
        """The newest session that is over at `now` (aware)."""
        return next(s for s in self.sessions_back(now.astimezone(CAIRO).date()) if s.close <= now)

    def is_final(self, interval: Interval, start: dt.datetime, now: dt.datetime) -> bool:
        """Whether the period of the bar that starts at `start` is over at `now` (both aware).

        An intraday bar: its minutes have passed. A daily, weekly or monthly one: its last session is closed, or, where the
        calendar knows no session in it, its last day has passed in Cairo.
        """
        if minutes := MINUTES.get(interval):
            return start + dt.timedelta(minutes=minutes) <= now
        return self._end(interval, start.astimezone(CAIRO).date()) <= now

    @lru_cache(maxsize=8192)  # noqa: B019 - there is one calendar a process
    def _end(self, interval: Interval, first: dt.date) -> dt.datetime:
        last = first
        if interval == "Weekly":  # a week ends on Saturday
            last += dt.timedelta(days=(5 - first.weekday()) % 7)
        elif interval == "Monthly":
            last = (first.replace(day=28) + dt.timedelta(days=4)).replace(day=1) - dt.timedelta(days=1)
        for session in self.sessions_back(last):
            if session.date < first:
                break
            return session.close
        return dt.datetime.combine(last + dt.timedelta(days=1), dt.time(), CAIRO).astimezone(dt.UTC)


DELAY: Final = dt.timedelta(minutes=45)  # of a session's first bar: the source's 15 minutes, a poll or two, and spare


def expected_session(calendar: Calendar, now: dt.datetime) -> Session:
    """The newest session of which bars must be there at `now` (aware): open for `DELAY`, or over."""
    return next(s for s in calendar.sessions_back(now.astimezone(CAIRO).date()) if s.open + DELAY <= now)


@cache
def egx(seeds: Path = SEEDS) -> Calendar:
    """The Egyptian Exchange's calendar from exchange_hours.csv and exchange_closures.csv."""
    with (seeds / "exchange_hours.csv").open(encoding="utf-8", newline="") as file:
        hours = [
            Hours(
                dt.date.fromisoformat(row["valid_from"]),
                dt.date.fromisoformat(row["valid_to"]) if row["valid_to"] else dt.date.max,
                row["kind"] == "ramadan",
                *(dt.time.fromisoformat(row[key]) for key in ("open", "close_continuous", "auction_end", "close")),
            )
            for row in csv.DictReader(file)
        ]
    with (seeds / "exchange_closures.csv").open(encoding="utf-8", newline="") as file:
        closures = frozenset(dt.date.fromisoformat(row["date"]) for row in csv.DictReader(file))
    return Calendar(hours, closures)

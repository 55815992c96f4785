"""The exchange's calendar for the stream: sessions, their hours, their bars, and when a bar's period is over.

Its facts are the warehouse's seeds (dated hours and closures), so that stream and warehouse never disagree. Where nobody has
observed the closures yet they are expected ones, which dataflows/xcai.py derives; this module needs none of its libraries.
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
LONG: Final[tuple[Interval, ...]] = ("Weekly", "Monthly")
"""Their bars start days before what is newest in them: they do not tell whether a session's bars are there."""
MINUTE: Final = dt.timedelta(minutes=1)
DAY: Final = dt.timedelta(days=1)
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


Period = tuple[dt.date, dt.date]
"""First and last date."""


class Calendar:
    """Sunday to Thursday but for the closures, by dated hours; Ramadan's hours go before the regular ones."""

    def __init__(
        self,
        hours: list[Hours],
        closures: frozenset[dt.date],
        known: tuple[Period, ...] = (),
        ramadans: tuple[Period, ...] = (),
    ) -> None:
        """
        :arg known: the periods whose closures were observed; elsewhere they are expected ones.
        :arg ramadans: the periods that are expected to be Ramadan, and have no hours of their own: nobody knows them yet.
        """
        self._hours = sorted(hours, key=lambda h: (not h.ramadan, h.first))
        self._closures, self._known, self._ramadans = closures, known, ramadans
        self.first = min(h.first for h in hours)

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
        while date >= self.first:
            if session := self.session(date):
                yield session
            date -= DAY

    def sessions(self, first: dt.date, last: dt.date) -> Iterator[Session]:
        """The sessions from one date to another, both included, oldest first."""
        date = max(first, self.first)
        while date <= last:
            if session := self.session(date):
                yield session
            date += DAY

    def known(self, date: dt.date) -> bool:
        """Whether it was observed that the exchange traded on that date, or did not."""
        return any(first <= date <= last for first, last in self._known)

    def hours_known(self, date: dt.date) -> bool:
        """Whether the session of a date has hours of its own: not in a Ramadan whose hours nobody has announced yet."""
        return not any(first <= date <= last for first, last in self._ramadans)

    def sure_until(self, session: Session) -> dt.datetime:
        """Up to when there is trading for sure: the close, or, where the hours are not known, the earliest end in a Ramadan."""
        if self.hours_known(session.date):
            return session.close
        earliest = min(hours.close_continuous for hours in self._hours if hours.ramadan)
        return dt.datetime.combine(session.date, earliest, CAIRO).astimezone(dt.UTC)

    def open_session(self, now: dt.datetime) -> Session | None:
        """The session that is on at `now` (aware), None where the exchange is closed."""
        session = self.session(now.astimezone(CAIRO).date())
        return session if session and session.open <= now < session.close else None

    def next_session(self, now: dt.datetime) -> Session:
        """The first session that opens after `now` (aware)."""
        today = now.astimezone(CAIRO).date()
        return next(s for s in self.sessions(today, today + dt.timedelta(days=366)) if s.open > now)

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
        _, last = period(interval, first)
        for session in self.sessions_back(last):
            if session.date < first:
                break
            return session.close
        return dt.datetime.combine(last + DAY, dt.time(), CAIRO).astimezone(dt.UTC)

    def expected(self, interval: Interval, first: dt.date, last: dt.date) -> Iterator[dt.datetime]:
        """The starts (UTC), in order, of the bars that the sessions from one date to another can have.

        Daily, Weekly and Monthly bars start with the opening of their first session. An intraday bar holds at least one minute
        of trading, which the closing auction's are not; a minute without a trade has no bar all the same.
        """
        if minutes := MINUTES.get(interval):
            for session in self.sessions(first, last):
                yield from _starts(session, minutes)
            return
        for session in self.sessions(first, last):
            begin, _ = period(interval, session.date)
            if next(self.sessions(begin, session.date)).date == session.date:
                yield session.open


def _starts(session: Session, minutes: int) -> Iterator[dt.datetime]:
    before = None
    for start, end in ((session.open, session.close_continuous), (session.auction_end, session.close)):
        for minute in range((end - start) // MINUTE):
            at = start + minute * MINUTE
            at -= (at.minute % minutes) * MINUTE
            if at != before:
                yield at
            before = at


def period(interval: Interval, date: dt.date) -> Period:
    """First and last day of the day, week (Sunday to Saturday) or month that a date is in."""
    if interval == "Weekly":
        sunday = date - dt.timedelta(days=(date.weekday() + 1) % 7)
        return sunday, sunday + dt.timedelta(days=6)
    if interval == "Monthly":
        return date.replace(day=1), (date.replace(day=28) + dt.timedelta(days=4)).replace(day=1) - DAY
    return date, date


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _period(row: dict[str, str]) -> Period:
    return dt.date.fromisoformat(row["valid_from"]), dt.date.fromisoformat(row["valid_to"]) if row["valid_to"] else dt.date.max


DELAY: Final = dt.timedelta(minutes=45)  # of a session's first bar: the source's 15 minutes, a poll or two, and spare


def expected_session(calendar: Calendar, now: dt.datetime) -> Session:
    """The newest session of which bars must be there at `now` (aware): open for `DELAY`, or over."""
    return next(s for s in calendar.sessions_back(now.astimezone(CAIRO).date()) if s.open + DELAY <= now)


@cache
def egx(seeds: Path = SEEDS) -> Calendar:
    """The Egyptian Exchange's calendar from the files exchange_*.csv of the seeds."""
    hours = [
        Hours(
            *_period(row),
            row["kind"] == "ramadan",
            *(dt.time.fromisoformat(row[key]) for key in ("open", "close_continuous", "auction_end", "close")),
        )
        for row in _rows(seeds / "exchange_hours.csv")
    ]
    known = tuple(_period(row) for row in _rows(seeds / "exchange_closures_known.csv"))
    listed = {dt.date.fromisoformat(row["date"]) for row in _rows(seeds / "exchange_closures.csv")}
    expected = {dt.date.fromisoformat(row["date"]) for row in _rows(seeds / "exchange_closures_expected.csv")}
    observed = {date for date in expected if any(first <= date <= last for first, last in known)}
    ramadans = tuple(_period(row) for row in _rows(seeds / "exchange_ramadan_expected.csv"))
    unknown = tuple(of for of in ramadans if not any(h.ramadan and h.first <= of[1] and of[0] <= h.last for h in hours))
    return Calendar(hours, frozenset(listed | (expected - observed)), known, unknown)

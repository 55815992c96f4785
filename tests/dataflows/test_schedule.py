"""When polls happen, on a clock that is driven by hand."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.bar import CAIRO
from dataflows.calendar import egx
from dataflows.schedule import LONGEST_WAIT, Schedule, SystemClock, polls

MINUTE = dt.timedelta(minutes=1)


class HandClock:
    """Time passes when it is waited for, and by `busy` during each poll; it ends at `end`."""

    def __init__(self, start: dt.datetime, end: dt.datetime) -> None:
        self.time, self.end = start, end
        self.longest_wait = 0.0

    def now(self) -> dt.datetime:
        return self.time

    def wait(self, seconds: float) -> bool:
        self.longest_wait = max(self.longest_wait, seconds)
        self.time += dt.timedelta(seconds=seconds)
        return self.time >= self.end


def schedule(always: bool = False) -> Schedule:
    return Schedule(egx(), 5 * MINUTE, 10 * MINUTE, 25 * MINUTE, always)


def cairo(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=CAIRO)


def polled(start: str, end: str, busy: dt.timedelta = dt.timedelta(), always: bool = False) -> list[str]:
    """The polls between two times in Cairo, as times in Cairo."""
    clock = HandClock(cairo(start), cairo(end))
    made = []
    for now in polls(schedule(always), clock):
        made.append(f"{now.astimezone(CAIRO):%d %H:%M}")
        clock.time += busy
    assert clock.longest_wait <= LONGEST_WAIT
    return made


def session(day: str, last: tuple[int, int] = (14, 25), after: str = "14:55") -> list[str]:
    """A session's polls: ten minutes before, every five minutes until the close, and after it."""
    times = [f"{minute // 60:02}:{minute % 60:02}" for minute in range(600, last[0] * 60 + last[1] + 1, 5)]
    return [f"{day} {time}" for time in ["09:50", *times, after]]


def test_a_day_before_open_session_auction_close_and_night() -> None:
    made = polled("2025-05-04 08:00", "2025-05-05 08:00")
    assert made == ["04 08:00", *session("04")]
    assert len(made) == 1 + 1 + 54 + 1


def test_the_poll_after_the_close_is_repeated_until_it_got_all_but_for_an_hour_only() -> None:
    def after_the_close(enough: int) -> list[str]:
        made: list[str] = []
        clock = HandClock(cairo("2025-05-04 14:24"), cairo("2025-05-05 08:00"))
        for now in polls(schedule(), clock, lambda: len(made) >= enough):
            made.append(f"{now.astimezone(CAIRO):%H:%M}")
        return made

    assert after_the_close(0) == ["14:24", "14:25", "14:55"]
    assert after_the_close(5) == ["14:24", "14:25", "14:55", "15:00", "15:05"]
    assert after_the_close(99) == ["14:24", "14:25", "14:55", *(f"15:{minute:02}" for minute in range(0, 55, 5))]


def test_a_weekend_and_a_holiday_are_idle() -> None:
    # Thursday 24 April 2025 is closed, Friday and Saturday are the weekend, Sunday 27 trades
    assert polled("2025-04-23 15:30", "2025-04-27 09:55") == ["23 15:30", "27 09:50"]


def test_a_day_in_ramadan_ends_at_half_past_one() -> None:
    assert polled("2025-03-10 08:00", "2025-03-11 08:00") == ["10 08:00", *session("10", (13, 25), "13:55")]


@pytest.mark.parametrize("last_day_before", ["2025-04-23", "2025-10-30"])
def test_the_clock_of_cairo_counts_through_a_change_of_daylight_saving_time(last_day_before: str) -> None:
    first_after = next(s for s in egx().sessions(cairo(last_day_before).date() + dt.timedelta(days=1), dt.date(2025, 12, 31)))
    before, after = egx().session(cairo(last_day_before).date()), first_after
    assert before is not None
    assert before.open.hour != after.open.hour  # in UTC
    day = f"{after.date:%d}"
    assert polled(f"{last_day_before} 15:30", f"{after.date} 23:00")[1:] == session(day)


def test_a_start_in_the_session_polls_at_once_and_then_on_the_grid() -> None:
    assert polled("2025-05-04 11:02", "2025-05-04 11:16") == ["04 11:02", "04 11:05", "04 11:10", "04 11:15"]


def test_a_slow_poll_is_followed_by_one_not_by_those_it_missed() -> None:
    assert polled("2025-05-04 10:00", "2025-05-04 10:40", busy=12 * MINUTE) == ["04 10:00", "04 10:12", "04 10:24", "04 10:36"]


def test_round_the_clock_where_the_calendar_is_turned_off() -> None:
    assert polled("2025-05-03 00:00", "2025-05-03 00:16", always=True) == ["03 00:00", "03 00:05", "03 00:10", "03 00:15"]


def test_a_clock_that_jumps_is_noticed() -> None:
    """As after a night in which the machine was suspended."""
    clock = HandClock(cairo("2025-05-04 15:30"), cairo("2025-05-05 11:31"))
    made = []
    for now in polls(schedule(), clock):
        made.append(f"{now.astimezone(CAIRO):%d %H:%M}")
        if len(made) == 1:
            clock.time = cairo("2025-05-05 11:29:30")
    assert made == ["04 15:30", "05 11:29", "05 11:30"]


@given(st.datetimes(dt.datetime(2014, 9, 1), dt.datetime(2026, 12, 1), timezones=st.just(dt.UTC)))  # noqa: DTZ001
def test_the_next_poll_is_later_and_within_a_fortnight(last: dt.datetime) -> None:
    due = schedule().due(last, last)
    assert last < due < last + dt.timedelta(days=14)
    opened = egx().open_session(last)
    if opened and last < opened.close - 5 * MINUTE:
        assert due - last <= 5 * MINUTE


def test_the_system_clock_waits_until_asked_to_end() -> None:
    stop = threading.Event()
    clock = SystemClock(stop)
    assert abs(clock.now() - dt.datetime.now(dt.UTC)) < MINUTE
    assert clock.wait(0.01) is False
    stop.set()
    assert clock.wait(60) is True

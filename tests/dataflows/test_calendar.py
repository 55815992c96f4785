from __future__ import annotations

import csv
import datetime as dt
import os
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.bar import CAIRO, INTERVALS, Interval
from dataflows.calendar import MINUTES, SEEDS, egx
from dataflows.market import market

CALENDAR = egx()
DATES = st.dates(dt.date(2015, 1, 1), dt.date(2027, 12, 31))


def cairo(date: dt.date, time: str) -> dt.datetime:
    return dt.datetime.combine(date, dt.time.fromisoformat(time), CAIRO)


@cache
def dates(name: str) -> set[str]:
    with (SEEDS / name).open(newline="") as file:
        return {row["date"] for row in csv.DictReader(file)}


@given(DATES)
def test_sessions_are_on_sundays_to_thursdays_but_for_closures_and_in_order(date: dt.date) -> None:
    session = CALENDAR.session(date)
    closures = dates("exchange_closures.csv") | (set() if CALENDAR.known(date) else dates("exchange_closures_expected.csv"))
    assert (session is None) == (date.strftime("%a") in ("Fri", "Sat") or date.isoformat() in closures)
    if session:
        assert session.open < session.close_continuous <= session.auction_end <= session.close
        assert {time.astimezone(CAIRO).date() for time in session[1:]} == {date}
        assert all(time.utcoffset() == dt.timedelta(0) for time in session[1:])


@pytest.mark.parametrize(
    ("date", "opens", "closes"),
    [
        ("2025-12-07", "08:00", "12:30"),  # winter: Cairo is two hours ahead
        ("2025-07-07", "07:00", "11:30"),  # summer time since 2023
        ("2022-07-07", "08:00", "12:30"),  # none in 2015-2022
        ("2025-03-03", "08:00", "11:30"),  # Ramadan
        ("2014-08-07", "07:00", "11:30"),  # the first day whose hours are known; summer time
    ],
)
def test_hours_are_cairos_of_that_date(date: str, opens: str, closes: str) -> None:
    session = CALENDAR.session(dt.date.fromisoformat(date))
    assert session
    assert (f"{session.open:%H:%M}", f"{session.close:%H:%M}") == (opens, closes)


def test_before_the_first_known_hours_there_is_no_session() -> None:
    assert CALENDAR.session(dt.date(2014, 8, 6)) is None
    assert list(CALENDAR.sessions_back(dt.date(2010, 1, 1))) == []


@given(DATES)
def test_going_back_gives_each_session_once_newest_first(date: dt.date) -> None:
    back = CALENDAR.sessions_back(date)
    dates = [next(back).date for _ in range(5) if date.year > 2015]
    assert dates == sorted(set(dates), reverse=True)
    if dates:
        span = (date - dates[-1]).days + 1
        days = [date - dt.timedelta(days=days) for days in range(span)]
        assert dates == [day for day in days if CALENDAR.session(day)]


@given(st.datetimes(dt.datetime(2016, 1, 1), dt.datetime(2027, 1, 1), timezones=st.just(dt.UTC)))  # noqa: DTZ001
def test_the_last_session_that_is_over_is_over_and_none_after_it_is(now: dt.datetime) -> None:
    last = CALENDAR.last_over(now)
    assert last.close <= now
    following = (last.date + dt.timedelta(days=days) for days in range(1, 30))
    assert all(session.close > now for day in following if (session := CALENDAR.session(day)))


@pytest.mark.parametrize(
    ("interval", "start", "final_from"),
    [
        ("1 Minute", "2025-12-07T10:00", "2025-12-07T10:01"),
        ("5 Minute", "2025-12-07T10:00", "2025-12-07T10:05"),
        ("30 Minute", "2025-12-07T10:00", "2025-12-07T10:30"),
        ("Daily", "2025-12-07T10:00", "2025-12-07T14:30"),
        ("Daily", "2025-12-07T00:00", "2025-12-07T14:30"),
        ("Daily", "2025-12-05T10:00", "2025-12-06T00:00"),  # a Friday: no session is known
        ("Weekly", "2025-12-07T10:00", "2025-12-11T14:30"),  # Sunday to Thursday
        ("Weekly", "2025-12-11T10:00", "2025-12-11T14:30"),
        ("Weekly", "2025-12-06T10:00", "2025-12-07T00:00"),  # a Saturday, a week's last day: no session is known
        ("Weekly", "2022-12-25T10:00", "2022-12-29T14:30"),
        ("Monthly", "2025-11-02T10:00", "2025-11-30T14:30"),
        ("Monthly", "2025-10-01T10:00", "2025-10-30T14:30"),  # the 31st is a Friday
        ("Daily", "2012-12-04T10:00", "2012-12-05T00:00"),  # before the first known hours
    ],
)
def test_a_bar_is_final_once_its_period_is_over(interval: Interval, start: str, final_from: str) -> None:
    starts, ends = (dt.datetime.fromisoformat(text).replace(tzinfo=CAIRO).astimezone(dt.UTC) for text in (start, final_from))
    assert CALENDAR.is_final(interval, starts, ends)
    assert not CALENDAR.is_final(interval, starts, ends - dt.timedelta(microseconds=1))


@given(
    st.sampled_from(INTERVALS),
    st.datetimes(dt.datetime(2016, 1, 1), dt.datetime(2027, 1, 1), timezones=st.just(dt.UTC)),  # noqa: DTZ001
    st.timedeltas(dt.timedelta(0), dt.timedelta(days=40)),
    st.timedeltas(dt.timedelta(0), dt.timedelta(days=40)),
)
def test_what_is_final_stays_final_and_nothing_is_before_it_began(
    interval: Interval, start: dt.datetime, after: dt.timedelta, later: dt.timedelta
) -> None:
    if CALENDAR.is_final(interval, start, start + after):
        assert CALENDAR.is_final(interval, start, start + after + later)
    if interval in MINUTES:
        assert not CALENDAR.is_final(interval, start, start)
    assert CALENDAR.is_final(interval, start, start + dt.timedelta(days=33))


@pytest.mark.skipif(not os.environ.get("EGX_DATA_DIR"), reason="EGX_DATA_DIR names no folder with observed closures")
def test_every_closure_that_was_observed_is_known() -> None:
    with (Path(os.environ["EGX_DATA_DIR"]) / "observed_closures_2022_2026.csv").open(newline="") as file:
        observed = {dt.date.fromisoformat(row["date"]) for row in csv.DictReader(file)}
    assert len(observed) == 91
    assert {date for date in observed if CALENDAR.session(date)} == set()


@pytest.mark.parametrize(
    ("now", "is_open", "opens", "closes"),
    [
        ("2025-12-07T09:59", 0, "2025-12-07T10:00", "2025-12-07T14:30"),
        ("2025-12-07T10:00", 1, "2025-12-07T10:00", "2025-12-07T14:30"),
        ("2025-12-04T14:30", 0, "2025-12-07T10:00", "2025-12-07T14:30"),  # over the weekend
    ],
)
def test_the_market_s_point_has_the_session_that_is_open_or_comes_next(now: str, is_open: int, opens: str, closes: str) -> None:
    def at(text: str) -> dt.datetime:
        return dt.datetime.fromisoformat(text).replace(tzinfo=CAIRO)

    point = market(egx(), "EGX", at(now)).decode().split(" ")[1]
    values = dict(field.split("=") for field in point.split(","))
    assert values["session_open"] == f"{is_open}i"
    assert float(values["opens_at"]) == at(opens).timestamp()
    assert float(values["closes_at"]) == at(closes).timestamp()

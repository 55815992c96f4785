"""The exchange's calendar in its two forms: the exchange_calendars class, and the light one of the stream."""

from __future__ import annotations

import csv
import datetime as dt
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import exchange_calendars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows import xcai
from dataflows.bar import INTERVALS
from dataflows.calendar import SEEDS, egx
from dataflows.xcai import EgyptianExchangeCalendar, UnconfirmedHolidays

CAIRO = ZoneInfo("Africa/Cairo")
FROM, TO = dt.date(2014, 1, 1), dt.date(2026, 12, 31)
NAIVE = dt.datetime(2014, 1, 1), dt.datetime(2027, 1, 1)  # noqa: DTZ001 - the strategy adds the zone
DATES = st.dates(FROM, TO)
HISTORY = os.environ.get("EGX_DATA_DIR")


@pytest.fixture(scope="module")
def calendar() -> Iterator[EgyptianExchangeCalendar]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconfirmedHolidays)
        yield EgyptianExchangeCalendar(end="2030-12-31")


def closed_days() -> set[dt.date]:
    with (SEEDS / "exchange_closures.csv").open(encoding="utf-8") as file:
        return {dt.date.fromisoformat(row["date"]) for row in csv.DictReader(file)}


def test_the_light_calendar_has_the_same_sessions_to_the_minute(calendar: EgyptianExchangeCalendar) -> None:
    light = list(egx().sessions(FROM, dt.date(2030, 12, 31)))
    assert [session.date for session in light] == [day.date() for day in calendar.sessions]
    assert [session.open for session in light] == list(calendar.opens)
    assert [session.close for session in light] == list(calendar.closes)
    for session in light[::7]:
        auction = calendar.session_auction(session.date.isoformat())
        same = (session.close_continuous, session.auction_end)
        assert auction == (same if same[0] < same[1] else None)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize(
    ("first", "last"), [("2014-08-07", "2014-12-31"), ("2024-12-01", "2025-04-30"), ("2026-06-01", "2027-06-30")]
)
def test_both_calendars_expect_the_same_bars(calendar: EgyptianExchangeCalendar, interval: str, first: str, last: str) -> None:
    light = egx().expected(interval, dt.date.fromisoformat(first), dt.date.fromisoformat(last))  # type: ignore[arg-type]
    assert list(calendar.expected_bars(interval, first, last).to_pydatetime()) == list(light)


def test_the_expected_closures_in_the_seeds_are_current() -> None:
    assert (SEEDS / "exchange_closures_expected.csv").read_text(encoding="utf-8") == xcai.expected_csv(), (
        "run `just calendar-seed`"
    )


def test_the_expected_ramadans_in_the_seeds_are_current_and_are_the_ramadans_without_hours() -> None:
    path = SEEDS / "exchange_ramadan_expected.csv"
    assert path.read_text(encoding="utf-8") == xcai.ramadan_csv(), "run `just calendar-seed`"
    for date, known in (("2026-03-01", True), ("2027-02-14", False), ("2027-04-01", True), ("2030-12-31", False)):
        assert egx().hours_known(dt.date.fromisoformat(date)) is known


def test_the_recipe_tells_whether_the_seed_is_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in SEEDS.glob("exchange_*.csv"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(xcai, "SEEDS", tmp_path)
    assert xcai.main(["--check"]) == 0
    (tmp_path / "exchange_closures_expected.csv").write_text("date,reason,estimated,source\n")
    assert xcai.main(["--check"]) == 1
    assert xcai.main([]) == 0
    assert xcai.main(["--check"]) == 0
    with (tmp_path / "exchange_hours.csv").open("a") as hours:
        hours.write("2027-02-08,2027-03-09,ramadan,10:00,13:15,13:25,13:30,announced\n")
    assert egx(tmp_path).hours_known(dt.date(2027, 2, 14))  # at once, before the recipe runs
    assert xcai.main(["--check"]) == 1
    assert xcai.main([]) == 0
    assert "2027" not in (tmp_path / "exchange_ramadan_expected.csv").read_text()
    assert xcai.main(["--check"]) == 0


def test_every_observed_closure_is_one_and_no_other_weekday_is(calendar: EgyptianExchangeCalendar) -> None:
    closed = closed_days()
    assert len(closed) == 91
    day, last = dt.date(2022, 1, 1), max(closed)
    while day <= last:
        shut = day.weekday() in (4, 5) or day in closed
        assert calendar.is_session(day.isoformat()) is not shut, day
        day += dt.timedelta(days=1)


@pytest.mark.skipif(not HISTORY, reason="EGX_DATA_DIR names no folder with the observed closures")
def test_the_closures_are_those_observed_in_four_price_sources(calendar: EgyptianExchangeCalendar) -> None:
    with (Path(HISTORY or "") / "observed_closures_2022_2026.csv").open(encoding="utf-8") as file:
        observed = {row["date"] for row in csv.DictReader(file)}
    days = (FROM + dt.timedelta(days=n) for n in range((max(closed_days()) - FROM).days + 1))
    weekdays = (day for day in days if day.year >= 2022 and day.weekday() not in (4, 5))
    assert {day.isoformat() for day in weekdays if not calendar.is_session(day.isoformat())} == observed


def test_a_false_holiday_and_a_moved_one(calendar: EgyptianExchangeCalendar) -> None:
    assert calendar.is_session("2023-04-27")  # named a holiday by the library
    assert not calendar.is_session("2025-04-24")  # Sinai Liberation Day, a Friday, kept on Thursday
    assert not calendar.is_session("2025-07-08")  # the fire in the telephone exchange


def test_the_rules_alone_know_most_closures() -> None:
    """What the forecast of coming years is worth, from the years that are known."""
    closed = closed_days()
    ruled = {day for year in range(2022, 2027) for day in xcai.by_rule(year) if day <= max(closed)}
    assert len(ruled & closed) >= 80
    assert len(ruled - closed) <= 1


@pytest.mark.parametrize(
    ("date", "open_utc", "close_utc"),
    [
        ("2014-08-07", "07:00", "11:30"),  # daylight saving time after Ramadan, until 25 September
        ("2014-09-25", "07:00", "11:30"),
        ("2014-09-28", "08:00", "12:30"),
        ("2015-07-01", "08:00", "12:30"),  # none from 2015 to 2022
        ("2022-07-05", "08:00", "12:30"),
        ("2023-04-27", "08:00", "12:30"),  # since 2023: from the last Friday of April
        ("2023-04-30", "07:00", "11:30"),
        ("2023-10-26", "07:00", "11:30"),  # to the last Thursday of October
        ("2023-10-29", "08:00", "12:30"),
        ("2024-04-28", "07:00", "11:30"),
        ("2025-10-30", "07:00", "11:30"),
        ("2025-11-02", "08:00", "12:30"),
        ("2022-04-10", "08:00", "11:30"),  # Ramadan
        ("2026-02-22", "08:00", "11:30"),
    ],
)
def test_hours_through_daylight_saving_time_and_ramadan(
    calendar: EgyptianExchangeCalendar, date: str, open_utc: str, close_utc: str
) -> None:
    assert f"{calendar.session_open(date):%H:%M}" == open_utc
    assert f"{calendar.session_close(date):%H:%M}" == close_utc


def test_the_minutes_of_a_session(calendar: EgyptianExchangeCalendar) -> None:
    assert len(calendar.session_minutes("2025-05-04")) == 270
    bars = calendar.expected_bars("1 Minute", "2025-05-04", "2025-05-04").tz_convert(CAIRO)
    assert len(bars) == 255 + 5
    assert [f"{bar:%H:%M}" for bar in bars[253:257]] == ["14:13", "14:14", "14:25", "14:26"]
    assert calendar.is_open_on_minute("2025-05-04 11:20")  # 14:20 in Cairo: the auction belongs to the session
    assert not calendar.is_open_on_minute("2025-05-04 11:30")
    assert [f"{bar:%H:%M}" for bar in calendar.expected_bars("30 Minute", "2025-05-04", "2025-05-04").tz_convert(CAIRO)] == (
        "10:00 10:30 11:00 11:30 12:00 12:30 13:00 13:30 14:00".split()  # noqa: SIM905
    )


def test_an_unknown_interval_is_refused(calendar: EgyptianExchangeCalendar) -> None:
    with pytest.raises(ValueError, match="2 Minute"):
        calendar.expected_bars("2 Minute", "2025-05-04", "2025-05-04")


def test_it_warns_of_a_year_whose_moon_nobody_has_seen() -> None:
    with pytest.warns(UnconfirmedHolidays, match=r"2027: Eid al-Fitr, .*Ramadan hours"):
        EgyptianExchangeCalendar(start="2027-01-01", end="2027-12-31")
    with pytest.warns(UnconfirmedHolidays, match=r"2026: Prophet's Birthday\."):
        EgyptianExchangeCalendar(start="2026-01-01", end="2026-12-31")


@pytest.mark.parametrize(
    ("start", "end", "name"),
    [
        ("2027-05-16", "2027-05-31", "Eid al-Adha"),  # begins with it
        ("2027-05-01", "2027-05-19", "Eid al-Adha"),  # ends in it
        ("2027-06-10", "2027-06-30", "Islamic New Year"),  # a Sunday, which may be kept on Thursday
        ("2027-08-01", "2027-08-31", "Prophet's Birthday"),  # at a weekend
        ("2026-08-25", "2026-09-30", "Prophet's Birthday"),
        ("2030-12-01", "2030-12-31", "Ramadan hours"),  # a Ramadan that ends in the next year
    ],
)
def test_it_warns_wherever_the_moon_or_the_government_may_move_a_day(start: str, end: str, name: str) -> None:
    with pytest.warns(UnconfirmedHolidays, match=f"{start[:4]}: .*{name}"):
        EgyptianExchangeCalendar(start=start, end=end)


def test_it_does_not_warn_of_confirmed_years() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnconfirmedHolidays)
        EgyptianExchangeCalendar(start="2022-01-01", end="2026-07-23")


def test_a_confirmed_year_is_the_seeds_word_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in SEEDS.glob("exchange_*.csv"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "exchange_closures.csv").open("a") as closures:
        closures.write("2026-08-27,Prophet's Birthday (observed),announced\n2026-10-08,Armed Forces Day (observed),announced\n")
    with (tmp_path / "exchange_closures_known.csv").open("a") as known:
        known.write("2026-07-24,2026-12-31,announced\n")
    assert not egx(SEEDS).session(dt.date(2026, 8, 25))
    light = egx(tmp_path)  # before the recipe ran: the file still expects 25 August
    assert light.session(dt.date(2026, 8, 25))
    assert not light.session(dt.date(2026, 8, 27))
    monkeypatch.setattr(xcai, "SEEDS", tmp_path)
    xcai.closures.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UnconfirmedHolidays)
            heavy = EgyptianExchangeCalendar(start="2026-01-01", end="2026-12-31")
        assert [day.date() for day in heavy.sessions] == [
            s.date for s in light.sessions(dt.date(2026, 1, 1), dt.date(2026, 12, 31))
        ]
        assert "2026" not in xcai.expected_csv()
    finally:
        xcai.closures.cache_clear()


def test_it_registers_with_the_library() -> None:
    xcai.register()
    try:
        with pytest.warns(UnconfirmedHolidays):
            calendar = exchange_calendars.get_calendar("XCAI", end="2027-06-30")
        assert isinstance(calendar, EgyptianExchangeCalendar)
        assert calendar.sessions_window("2025-05-04", 3).strftime("%a").tolist() == ["Sun", "Mon", "Tue"]
    finally:
        exchange_calendars.deregister_calendar("XCAI")


def test_the_module_stands_alone() -> None:
    """So that it can be offered to exchange_calendars as it is; and the stream starts without its libraries."""
    script = (
        "import sys, dataflows.xcai; "
        "assert not [m for m in sys.modules if m.startswith(('dataflows.', 'connectors', 'bytewax')) and m != 'dataflows.xcai']"
    )
    root = SEEDS.parent.parent
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root)
    script = "import sys, dataflows.calendar; assert not {'pandas', 'holidays', 'exchange_calendars'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root)


def test_opens_before_closes_and_sessions_do_not_touch(calendar: EgyptianExchangeCalendar) -> None:
    assert (calendar.opens < calendar.closes).all()
    assert all(before < after for before, after in pairwise(calendar.sessions))
    assert (calendar.closes.to_numpy()[:-1] < calendar.opens.to_numpy()[1:]).all()


@given(st.datetimes(*NAIVE, timezones=st.just(dt.UTC)))
def test_a_minute_belongs_to_at_most_one_session(moment: dt.datetime) -> None:
    day = moment.astimezone(CAIRO).date()
    around = list(egx().sessions(day - dt.timedelta(days=4), day + dt.timedelta(days=4)))
    holding = [session for session in around if session.open <= moment < session.close]
    assert len(holding) <= 1
    assert egx().open_session(moment) == (holding[0] if holding else None)
    for session in around:
        assert session.open < session.close_continuous <= session.auction_end <= session.close


@given(DATES, st.integers(0, 40), st.integers(0, 40), st.sampled_from(INTERVALS))
def test_more_days_never_have_fewer_bars(first: dt.date, days: int, more: int, interval: str) -> None:
    last = first + dt.timedelta(days=days)
    fewer = list(egx().expected(interval, first, last))  # type: ignore[arg-type]
    longer = list(egx().expected(interval, first, last + dt.timedelta(days=more)))  # type: ignore[arg-type]
    assert longer[: len(fewer)] == fewer
    assert all(before < after for before, after in pairwise(longer))


@given(DATES, st.sampled_from(INTERVALS))
def test_each_expected_bar_is_in_a_session(day: dt.date, interval: str) -> None:
    for start in egx().expected(interval, day, day):  # type: ignore[arg-type]
        session = egx().session(start.astimezone(CAIRO).date())
        assert session is not None
        assert session.open <= start < session.close


@given(DATES)
def test_finer_intervals_fill_the_coarser_ones(day: dt.date) -> None:
    starts = {interval: list(egx().expected(interval, day, day)) for interval in ("1 Minute", "5 Minute", "30 Minute")}  # type: ignore[arg-type]
    for interval, minutes in (("5 Minute", 5), ("30 Minute", 30)):
        floored = {start - dt.timedelta(minutes=start.minute % minutes) for start in starts["1 Minute"]}
        assert sorted(floored) == starts[interval]

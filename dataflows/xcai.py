"""The Egyptian Exchange as a class for the exchange_calendars library, code XCAI (docs/calendar.md).

    calendar = EgyptianExchangeCalendar(start="2024-01-01", end="2026-06-30")
    register(); exchange_calendars.get_calendar("XCAI")
    python -m dataflows.xcai            # writes the closures and Ramadans it expects, for stream and warehouse; --check compares

Holidays come from the `holidays` library and two rules, hours and what is known better from the files in warehouse/seeds.
The module needs these, `exchange_calendars` and `holidays`, and nothing else of this project.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import io
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple
from zoneinfo import ZoneInfo

import exchange_calendars
import pandas as pd
from dateutil.easter import EASTER_ORTHODOX, easter
from exchange_calendars.exchange_calendar import ExchangeCalendar
from holidays import country_holidays

SEEDS: Final = Path(__file__).resolve().parent.parent / "warehouse" / "seeds"
FIRST: Final = dt.date(2014, 8, 7)  # from here on the hours are known
LAST: Final = dt.date(2030, 12, 31)
FRIDAY, SATURDAY = 4, 5
_MINUTES: Final = {"1 Minute": 1, "5 Minute": 5, "30 Minute": 30}


class UnconfirmedHolidays(UserWarning):
    """The calendar covers years whose moon-sighted holidays, or Ramadan hours, nobody has confirmed yet."""


class Closure(NamedTuple):
    """A day, Sunday to Thursday, without trading; `estimated`: its date hangs on a moon that nobody has seen yet."""

    reason: str
    estimated: bool = False


def _rows(name: str) -> list[dict[str, str]]:
    with (SEEDS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _days(first: str, last: str) -> Iterator[dt.date]:
    day, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last) if last else LAST
    while day <= end:
        yield day
        day += dt.timedelta(days=1)


def by_rule(year: int) -> dict[dt.date, Closure]:
    """The closures of a year that follow from rules: public and government holidays, 1 January and Coptic Easter.

    `holidays` estimates the moon-sighted ones where it has no confirmed date. Banks, and with them the exchange, rest on
    1 January, and on Coptic Easter Sunday besides the spring festival on Monday, which are no public holidays.
    """
    made = {
        dt.date(year, 1, 1): Closure("New Year (bank holiday)"),
        easter(year, EASTER_ORTHODOX): Closure("Coptic Easter"),
    }
    for day, name in _named(year).items():
        made[day] = Closure(name.replace(", estimated)", ")").replace(" (estimated)", ""), "estimated" in name)
    return {day: closure for day, closure in sorted(made.items()) if day.weekday() not in (FRIDAY, SATURDAY)}


def _named(year: int) -> Any:
    """Date -> name of a year's holidays, of weekends too; with "estimated" in it where the moon decides."""
    return country_holidays("EG", years=year, language="en_US", categories=("public", "government"))


def ramadans_without_hours() -> list[tuple[dt.date, dt.date]]:
    """First and last day of each Ramadan from FIRST to LAST that exchange_hours.csv says nothing of.

    A day longer at both ends than the thirty days before Eid al-Fitr, for the moon decides when it begins and ends.
    """
    dated = [(row["valid_from"], row["valid_to"]) for row in _rows("exchange_hours.csv") if row["kind"] == "ramadan"]
    found = []
    for year in range(FIRST.year, LAST.year + 2):  # a year's last Ramadan may end in the next one
        feast = min(day for day, name in _named(year).items() if "Eid al-Fitr" in name)
        first, last = feast - dt.timedelta(days=31), feast
        if first <= LAST and last >= FIRST and not any(a <= last.isoformat() and first.isoformat() <= b for a, b in dated):
            found.append((first, last))
    return found


def _known_days() -> set[dt.date]:
    """Those for which exchange_closures_known.csv says that exchange_closures.csv is complete."""
    return {day for row in _rows("exchange_closures_known.csv") for day in _days(row["valid_from"], row["valid_to"])}


@cache
def closures() -> dict[dt.date, Closure]:
    """Every closure from FIRST to LAST.

    Where exchange_closures_known.csv says that exchange_closures.csv is complete, those of that file; elsewhere the rules',
    but for the days of exchange_open_holidays.csv, and those of the file too.
    """
    listed = {dt.date.fromisoformat(row["date"]): Closure(row["reason"]) for row in _rows("exchange_closures.csv")}
    open_anyway = {dt.date.fromisoformat(row["date"]) for row in _rows("exchange_open_holidays.csv")}
    known = _known_days()
    ruled = {day: closure for year in range(FIRST.year, LAST.year + 1) for day, closure in by_rule(year).items()}
    kept = {day: closure for day, closure in ruled.items() if day not in known and day not in open_anyway}
    return {day: closure for day, closure in sorted({**kept, **listed}.items()) if FIRST <= day <= LAST}


class EgyptianExchangeCalendar(ExchangeCalendar):  # type: ignore[misc]  # the library has no types
    """Exchange calendar for the Egyptian Exchange (XCAI), Cairo.

    Sunday to Thursday. Since 7 August 2014: 10:00 to 14:30. From 2025 on continuous trading ends at 14:15, a closing auction
    at 14:25 and trading at the closing price at 14:30. In Ramadan trading ends at 13:30 (known from 2022 on).
    Early closes are Ramadan's; there are no breaks: the auction belongs to the session.

    Warns (UnconfirmedHolidays) when it is made for years whose moon-sighted holidays are estimates, or for a Ramadan whose
    hours are not known.
    """

    name = "XCAI"
    tz = ZoneInfo("Africa/Cairo")
    _hours: ClassVar[list[dict[str, str]] | None] = None

    def __init__(self, start: Any = None, end: Any = None, side: str = "left") -> None:
        super().__init__(start, end, side)
        self._asked = (
            self.first_session.date() if start is None else pd.Timestamp(start).date(),
            self.last_session.date() if end is None else pd.Timestamp(end).date(),
        )
        if unsure := self.unconfirmed():
            years = "; ".join(f"{year}: {', '.join(names)}" for year, names in unsure.items())
            warnings.warn(
                f"XCAI: not confirmed yet, so that these days or hours may be wrong: {years}. Add what the exchange announces "
                "to exchange_closures.csv and exchange_hours.csv",
                UnconfirmedHolidays,
                stacklevel=2,
            )

    @classmethod
    def bound_min(cls) -> pd.Timestamp:
        return pd.Timestamp(FIRST)

    @classmethod
    def bound_max(cls) -> pd.Timestamp:
        return pd.Timestamp(LAST)

    @property
    def weekmask(self) -> str:
        return "1111001"

    @property
    def adhoc_holidays(self) -> list[pd.Timestamp]:
        return [pd.Timestamp(day) for day in closures()]

    @classmethod
    def hours(cls, kind: str) -> list[dict[str, str]]:
        """The rows of exchange_hours.csv of a kind, `regular` or `ramadan`, oldest first."""
        if cls._hours is None:
            cls._hours = sorted(_rows("exchange_hours.csv"), key=lambda row: row["valid_from"])
        return [row for row in cls._hours if row["kind"] == kind]

    def _regular(self, column: str) -> tuple[tuple[pd.Timestamp | None, dt.time], ...]:
        first, *others = self.hours("regular")
        return (
            (None, dt.time.fromisoformat(first[column])),
            *((pd.Timestamp(row["valid_from"]), dt.time.fromisoformat(row[column])) for row in others),
        )

    @property
    def open_times(self) -> tuple[tuple[pd.Timestamp | None, dt.time], ...]:
        return self._regular("open")

    @property
    def close_times(self) -> tuple[tuple[pd.Timestamp | None, dt.time], ...]:
        return self._regular("close")

    def _in_ramadan(self, column: str) -> list[tuple[dt.time, pd.DatetimeIndex]]:
        shut = closures()
        return [
            (
                dt.time.fromisoformat(row[column]),
                pd.DatetimeIndex(
                    [
                        day
                        for day in _days(row["valid_from"], row["valid_to"])
                        if day not in shut and day.weekday() not in (FRIDAY, SATURDAY)
                    ]
                ),
            )
            for row in self.hours("ramadan")
        ]

    @property
    def special_opens_adhoc(self) -> list[tuple[dt.time, pd.DatetimeIndex]]:
        return self._in_ramadan("open")

    @property
    def special_closes_adhoc(self) -> list[tuple[dt.time, pd.DatetimeIndex]]:
        return self._in_ramadan("close")

    # What the library has no notion of

    def unconfirmed(self) -> dict[int, list[str]]:
        """Year -> what is only estimated of it, of the years that the calendar's range touches outside the known periods.

        Holidays of the whole year, at weekends too: the moon may move them, and so may the government, into the range.
        """
        first, last = self._asked
        known = _known_days()
        found: dict[int, list[str]] = {}
        for year in sorted({day.year for day in _days(first.isoformat(), last.isoformat()) if day not in known}):
            names = [part for day, name in sorted(_named(year).items()) if day not in known for part in name.split("; ")]
            found[year] = list(dict.fromkeys(name.split(" (")[0] for name in names if "estimated" in name))
        for begin, end in ramadans_without_hours():
            if begin <= last and first <= end:
                found.setdefault(begin.year, []).append("Ramadan hours")
        return {year: names for year, names in sorted(found.items()) if names}

    def _hours_of(self, session: Any) -> dict[str, str]:
        date = pd.Timestamp(session).date().isoformat()
        rows = [*self.hours("ramadan"), *self.hours("regular")]
        return next(row for row in rows if row["valid_from"] <= date and (not row["valid_to"] or date <= row["valid_to"]))

    def session_auction(self, session: Any) -> tuple[pd.Timestamp, pd.Timestamp] | None:
        """Start and end (UTC) of the closing auction of a session, in which no trade and so no bar is; None without one."""
        hours = self._hours_of(session)
        if hours["close_continuous"] == hours["auction_end"]:
            return None
        date = pd.Timestamp(session).date().isoformat()
        start, end = (
            pd.Timestamp(f"{date} {hours[column]}", tz=self.tz).tz_convert("UTC")
            for column in ("close_continuous", "auction_end")
        )
        return start, end

    def expected_bars(self, interval: str, start: Any, end: Any) -> pd.DatetimeIndex:
        """The starts (UTC) of the bars that the sessions from one date to another can have.

        :arg interval: Daily, Weekly, Monthly, 1 Minute, 5 Minute or 30 Minute. A minute without a trade has no bar.
        """
        sessions = self.sessions_in_range(start, end)
        if interval in _MINUTES:
            minutes = [self._minutes_with_trade(session) for session in sessions]
            joined = minutes[0].append(minutes[1:]) if minutes else pd.DatetimeIndex([], tz="UTC")
            return joined.floor(f"{_MINUTES[interval]}min").unique()
        opens = self.opens[sessions]
        if interval == "Daily":
            return pd.DatetimeIndex(opens)
        if interval not in ("Weekly", "Monthly"):
            raise ValueError(f"{interval!r} is none of Daily, Weekly, Monthly, {', '.join(_MINUTES)}")
        whole = pd.Series(self.sessions, index=self.sessions)
        firsts = whole.groupby(whole.dt.to_period("W-SAT" if interval == "Weekly" else "M")).min()
        return pd.DatetimeIndex(opens[opens.index.isin(firsts)])

    def _minutes_with_trade(self, session: Any) -> pd.DatetimeIndex:
        minutes = pd.date_range(self.session_open(session), self.session_close(session), freq="min", inclusive="left")
        if auction := self.session_auction(session):
            return minutes[(minutes < auction[0]) | (minutes >= auction[1])]
        return minutes


def register() -> None:
    """Makes `exchange_calendars.get_calendar("XCAI")` know the calendar."""
    exchange_calendars.register_calendar_type(EgyptianExchangeCalendar.name, EgyptianExchangeCalendar, force=True)


def expected_csv() -> str:
    """warehouse/seeds/exchange_closures_expected.csv: the closures that nobody has observed, by rule."""
    listed = {row["date"] for row in _rows("exchange_closures.csv")}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("date", "reason", "estimated", "source"))
    for day, closure in closures().items():
        if day.isoformat() not in listed:
            writer.writerow((day, closure.reason, str(closure.estimated).lower(), "rule"))
    return text.getvalue()


def ramadan_csv() -> str:
    """warehouse/seeds/exchange_ramadan_expected.csv: the Ramadans whose hours nobody knows."""
    rows = [f"{first},{last},rule\n" for first, last in ramadans_without_hours()]
    return "".join(["valid_from,valid_to,source\n", *rows])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the closures and Ramadans that the exchange's calendar expects.")
    parser.add_argument("--check", action="store_true", help="only compare: status 1 if a file is out of date")
    check = parser.parse_args(arguments).check
    status = 0
    for name, made in (("exchange_closures_expected.csv", expected_csv), ("exchange_ramadan_expected.csv", ramadan_csv)):
        path, text = SEEDS / name, made()
        rows = len(text.splitlines()) - 1
        if path.exists() and path.read_text(encoding="utf-8") == text:
            print(f"{name} is current: {rows} rows")
        elif check:
            print(f"{name} is out of date: run `just calendar-seed`", file=sys.stderr)
            status = 1
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}: {rows} rows")
    return status


if __name__ == "__main__":
    sys.exit(main())

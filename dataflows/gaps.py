"""What is missing in the archive, by the exchange's calendar (docs/egxpy.md says how quiet minutes are told from gaps).

    python -m dataflows.gaps [--from 2026-05-01] [--to 2026-05-31] [--symbols COMI,ETEL] [--interval "1 Minute"] [--json]

Ends with status 0 where nothing is missing, 1 where something is, 2 where it could not be told.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import json
import math
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from connectors.errors import ConnectorError
from dataflows.archive import store
from dataflows.archived import Archived, Series, read
from dataflows.bar import CAIRO, INTERVALS, Bar, Interval
from dataflows.calendar import DAY, MINUTES, Calendar, Session, egx, period
from dataflows.process import now
from dataflows.quiet import Quiet
from dataflows.settings import Settings, SettingsError, load
from dataflows.symbols import traded_until

DAYS_BACK: Final = 30  # where --from is not given
STALE_SESSIONS: Final = 3  # a symbol without a bar in so many sessions is stale
MOST_ROWS: Final = 100  # of the table
IMPROBABLE: Final = 1e-6  # of a session to have such a long quiet run by chance
SUSPECT: Final = 1e-3  # the same in a session whose Daily bar has more volume than its other bars
ALWAYS: Final = 0.98  # from this share of its bars on, a 5 or 30 Minute bar's absence is no quiet
AGREES: Final = 0.001  # of a day's volume: within it, the Daily bar says that all its bars are there
DAILY_TOLERANCE: Final = 0.02  # of a day's volume, where it usually differs from that of the day's other bars
MOST_USUAL: Final = 0.05  # of a day's volume: what lacks more in most sessions is not off the book, it is lost
_DATED: Final[tuple[Interval, ...]] = ("Daily", "Weekly", "Monthly")
_COARSER: Final[dict[Interval, tuple[Interval, ...]]] = {
    "1 Minute": ("5 Minute", "30 Minute"),
    "5 Minute": ("30 Minute",),
    "30 Minute": (),
}

Starts = list[dt.datetime]
Why = dict[dt.datetime, str]
"""A missing bar's start -> how it is known to be missing."""


@dataclass(frozen=True)
class Gap:
    """Consecutive bars of a symbol and interval that are missing, or unfinished long after their end; times in UTC."""

    symbol: str
    interval: Interval
    kind: str
    """session (no bar of it at all), bars (some of a session), somewhere (some of these bars), or unfinished."""
    why: str
    starts: tuple[dt.datetime, ...]
    traded: bool = False
    """Whether the Daily bar says that there was trade in a session without any bar: that it was quiet is no excuse."""

    def as_json(self) -> dict[str, Any]:
        first, last = self.starts[0].isoformat(), self.starts[-1].isoformat()
        named = {"symbol": self.symbol, "interval": self.interval, "kind": self.kind, "why": self.why}
        return {**named, "first": first, "last": last, "bars": len(self.starts)}


@dataclass
class Report:
    """What was checked and what is wrong with it."""

    first: dt.date
    last: dt.date
    series: list[Series] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    stale: dict[str, dt.datetime | None] = field(default_factory=dict)
    """Symbol -> the start of its newest bar, None without any."""
    unconfirmed: int = 0
    """Sessions that the calendar only expects, or whose Ramadan hours it does not know."""

    @property
    def missing(self) -> int:
        return sum(len(gap.starts) for gap in self.gaps)

    def as_json(self) -> dict[str, Any]:
        return {
            "from": self.first.isoformat(),
            "to": self.last.isoformat(),
            "series": [f"{symbol} {interval}" for symbol, interval in self.series],
            "missing_bars": self.missing,
            "gaps": [gap.as_json() for gap in self.gaps],
            "stale": {symbol: start.isoformat() if start else None for symbol, start in self.stale.items()},
            "unconfirmed_sessions": self.unconfirmed,
        }


class Checker:
    """Compares one archive with the calendar."""

    def __init__(self, archived: Archived, calendar: Calendar, first: dt.date, last: dt.date, over: dt.datetime) -> None:
        """
        :arg first, last: the dates in Cairo to check, both included.
        :arg over: aware; a bar whose period was over by then should be there, and final.
        """
        self._archived, self._calendar, self._over = archived, calendar, over
        self._first, self._last = first, last
        self._sessions = list(calendar.sessions(first, last))

    def gaps(self, symbol: str, interval: Interval, quiet: set[dt.datetime]) -> list[Gap]:
        """A symbol's gaps, oldest first; `quiet` are the starts of bars that the source does not have."""
        bars = self._archived.get((symbol, interval), {})
        found = (
            self._dated(symbol, interval, bars, quiet) if interval in _DATED else self._intraday(symbol, interval, bars, quiet)
        )
        unfinished = sorted(
            start for start, bar in bars.items() if not bar.is_final and self._calendar.is_final(interval, start, self._over)
        )
        found += [
            Gap(symbol, interval, "unfinished", "its period is over", (start,)) for start in unfinished if start not in quiet
        ]
        return sorted(found, key=lambda gap: gap.starts)

    def _dated(self, symbol: str, interval: Interval, bars: Mapping[dt.datetime, Bar], quiet: set[dt.datetime]) -> list[Gap]:
        until = traded_until(symbol)
        have = {period(interval, start.astimezone(CAIRO).date()) for start in [*bars, *quiet]}
        expected = [
            start
            for start in self._calendar.expected(interval, self._first, self._last)
            if self._calendar.is_final(interval, start, self._over)
            and (until is None or start.astimezone(CAIRO).date() < until)
            and not any(self._calendar.sessions(self._last + DAY, period(interval, start.astimezone(CAIRO).date())[1]))
        ]
        missing = {start: "no bar" for start in expected if period(interval, start.astimezone(CAIRO).date()) not in have}
        return list(_join(symbol, interval, "session", missing, expected))

    def _intraday(self, symbol: str, interval: Interval, bars: Mapping[dt.datetime, Bar], quiet: set[dt.datetime]) -> list[Gap]:
        until = traded_until(symbol)
        width = MINUTES[interval] * _MINUTE
        per_session = [
            (session, [start for start in self._calendar.expected(interval, session.date, session.date) if start + width <= end])
            for session in self._sessions
            for end in [self._calendar.sure_until(session)]
            if session.close <= self._over and (until is None or session.date < until)
        ]
        rates = [sum(start in bars for start in expected) / len(expected) for _, expected in per_session]
        usual = statistics.median(traded) if (traded := [rate for rate in rates if rate]) else 0.0
        days = {
            start.astimezone(CAIRO).date(): bar.volume
            for start, bar in self._archived.get((symbol, "Daily"), {}).items()
            if bar.is_final and bar.volume
        }
        lacks = _lacks(bars, days)
        tolerance = _tolerance([lacks[date] / days[date] for date in lacks])

        def has(each: tuple[tuple[Session, Starts], float]) -> str:
            (session, _), rate = each
            return "bars" if rate else "volume" if session.date in days else "nothing"

        found: list[Gap] = []
        for what, run in groupby(zip(per_session, rates, strict=True), has):
            if what != "bars":  # sessions without any bar, as one gap
                contradicted = what == "volume"
                starts = tuple(start for (_, expected), _ in run for start in expected if contradicted or start not in quiet)
                if starts:
                    text = "no bar, but the Daily bar has volume" if contradicted else "no bar"
                    found.append(Gap(symbol, interval, "session", text, starts, contradicted))
                continue
            for (session, expected), rate in run:
                absent = [start for start in expected if start not in bars and start not in quiet]
                why, unsure, shares = self._by_other_intervals(symbol, interval, absent)
                volume, lack = days.get(session.date, 0), lacks.get(session.date)
                beyond = (lack - shares) / volume if lack is not None else math.nan  # what these do not explain
                likely = functools.partial(self._improbable, interval, expected, set(unsure), max(rate, usual / 2))
                if lack is None and MINUTES[interval] >= 5 and usual >= ALWAYS:
                    why.update((start, "it trades in nearly every one") for start in unsure)
                elif unsure and beyond > tolerance:
                    why.update(runs := likely(SUSPECT))
                    if not runs:
                        text = f"the Daily bar has {beyond:.1%} more volume"
                        found.append(Gap(symbol, interval, "somewhere", text, tuple(unsure)))
                elif not abs(beyond) <= AGREES:
                    why.update(likely(IMPROBABLE))
                found += _join(symbol, interval, "bars", why, expected)
        return found

    def _by_other_intervals(self, symbol: str, interval: Interval, absent: Starts) -> tuple[Why, Starts, int]:
        """What finer and coarser bars say of a session's absent bars.

        Those that are missing, those left unsure, and how many shares of the day's volume were traded in the missing ones.
        """
        why: Why = {}
        explained: set[dt.datetime] = set()
        lacking: list[tuple[dt.datetime, int]] = []  # start of a bar, and what it or its parts lack of its volume
        minutes = MINUTES[interval]
        for finer, width in MINUTES.items():
            if width < minutes:
                of = self._archived.get((symbol, finer), {})
                for start in absent:
                    parts = [of[part] for n in range(minutes // width) if (part := start + n * width * _MINUTE) in of]
                    if parts and start not in why:
                        why[start] = f"{finer} bars are there"
                        lacking.append((start, sum(bar.volume or 0 for bar in parts)))
                if absent and any(at in of for at in self._calendar.expected(finer, *[absent[0].astimezone(CAIRO).date()] * 2)):
                    explained.update(absent)  # the others have no such bars either; should those be missing, they are found first
        own = self._archived.get((symbol, interval), {})
        for coarser in _COARSER[interval]:
            width = MINUTES[coarser]
            wholes = self._archived.get((symbol, coarser), {})
            for begin, run in groupby(absent, lambda start: start - start.minute % width * _MINUTE):  # noqa: B023 - used at once
                inside, end = [start for start in run if start not in explained], begin + width * _MINUTE
                whole = wholes.get(begin)
                at = (begin + n * minutes * _MINUTE for n in range(width // minutes))
                volumes = [own[start].volume for start in at if start in own]
                if not inside or whole is None or whole.volume is None or not whole.is_final or None in volumes:
                    continue
                lacks = whole.volume - sum(volume or 0 for volume in volumes)
                lacks -= sum(shares for start, shares in lacking if begin <= start < end)
                if lacks > 0:
                    lacking.append((begin, lacks))
                    why.update((start, f"the {coarser} bar has more volume") for start in inside if start not in why)
                explained.update(inside)  # missing, or nothing was traded in them
        unsure = [start for start in absent if start not in explained and start not in why]
        return why, unsure, sum(shares for _, shares in lacking)

    def _improbable(self, interval: Interval, expected: Starts, absent: set[dt.datetime], rate: float, level: float) -> Why:
        """Runs of absent bars that chance does not make, at a `level`: the symbol's own, and those of the whole market."""
        why: Why = {}
        for run in _runs(expected, absent):
            if len(expected) * (1 - rate) ** len(run) < level:
                why.update((start, f"{len(run)} in a row, where {rate:.0%} have one") for start in run)
        shares: list[float] = []
        anyone: set[dt.datetime] = set()
        for (_, other), bars in self._archived.items():
            if other == interval and (here := [start for start in expected if start in bars]):
                shares.append(len(here) / len(expected))
                anyone.update(here)
        if len(shares) > 1:
            chance = math.prod(1 - share for share in shares)
            for run in _runs(expected, absent - anyone):
                if len(expected) * chance ** len(run) < level:
                    why.update((start, f"none of {len(shares)} symbols has one") for start in run)
        return why


def _lacks(bars: Mapping[dt.datetime, Bar], days: Mapping[dt.date, int]) -> dict[dt.date, int]:
    """Date -> how many shares of its volume are in none of its bars, where that can be told; `days`: the volumes."""
    volumes: dict[dt.date, list[int | None]] = {}
    for start, bar in bars.items():
        volumes.setdefault(start.astimezone(CAIRO).date(), []).append(bar.volume)
    return {
        date: days[date] - sum(volume or 0 for volume in of) for date, of in volumes.items() if date in days and None not in of
    }


def _tolerance(lacks: list[float]) -> float:
    """Up to which lack of a day's volume a session counts as whole, by that of all sessions.

    Where the volumes usually agree to the share, any lack tells; where most sessions lack much, so does what is above zero.
    """
    if len(lacks) < 3 or (usual := statistics.median(lacks)) > MOST_USUAL:
        return DAILY_TOLERANCE
    return max(usual, 0.0) + (DAILY_TOLERANCE if usual else 0.0)


_MINUTE: Final = dt.timedelta(minutes=1)


def _runs(expected: Starts, absent: set[dt.datetime]) -> Iterator[Starts]:
    for missing, run in groupby(expected, lambda start: start in absent):
        if missing:
            yield list(run)


def _join(symbol: str, interval: Interval, kind: str, missing: Why, expected: Starts) -> Iterator[Gap]:
    """Missing bars that follow each other, and are missing for the same reason, as one gap."""
    for why, run in groupby(expected, missing.get):
        if why is not None:
            yield Gap(symbol, interval, kind, why, tuple(run))


def quiet(settings: Settings) -> Quiet:
    """The memory of what the source of the settings does not have."""
    return Quiet(settings.path(settings.ingest.state), settings.source.kind, settings.source.exchange)


def check(
    settings: Settings, series: Sequence[Series], first: dt.date, last: dt.date, over: dt.datetime, *, again: bool = False
) -> Report:
    """The report of an archive.

    :arg series: what to check; those without an interval in the archive count as wholly missing.
    :arg over: aware; what was over by then is checked.
    :arg again: first forget that some of it was quiet.
    :raises ConnectorError: the archive cannot be read.
    """
    calendar = egx()
    source = settings.source
    symbols = list(dict.fromkeys(symbol for symbol, _ in series))
    archived = read(store(settings), source.exchange, symbols, first, last, over + DAY)
    without = quiet(settings)
    checker = Checker(archived, calendar, first, last, over)
    report = Report(first, last, list(series))
    for symbol, interval in series:
        if again:
            midnight = dt.datetime.combine(first, dt.time(), CAIRO).astimezone(dt.UTC)
            without.forget(symbol, interval, midnight, over)
        report.gaps += checker.gaps(symbol, interval, without.starts(symbol, interval))
    report.stale = _stale(archived, symbols, [session for session in calendar.sessions(first, last) if session.close <= over])
    dates = [session.date for session in calendar.sessions(first, last)]
    report.unconfirmed = sum(not (calendar.known(date) and calendar.hours_known(date)) for date in dates)
    return report


def _stale(archived: Archived, symbols: Iterable[str], sessions: Sequence[Session]) -> dict[str, dt.datetime | None]:
    """The symbols of which nothing came in the last STALE_SESSIONS sessions, but for those that trade no more."""
    if len(sessions) < STALE_SESSIONS:
        return {}
    since = sessions[-STALE_SESSIONS]
    stale = {}
    for symbol in symbols:
        until = traded_until(symbol)
        newest = max((start for (name, _), bars in archived.items() if name == symbol for start in bars), default=None)
        if (newest is None or newest < since.open) and (until is None or until > since.date):
            stale[symbol] = newest
    return stale


def table(report: Report) -> Table:
    made = Table(title=f"{report.missing:,} bars missing, {report.first} to {report.last}", pad_edge=False)
    for header in ("Symbol", "Interval", "What", "From (Cairo)", "To (Cairo)", "Bars", "Why"):
        made.add_column(header, justify="right" if header == "Bars" else "left", overflow="fold")
    for gap in report.gaps[:MOST_ROWS]:
        form = "%Y-%m-%d" if gap.interval in _DATED else "%Y-%m-%d %H:%M"
        first, last = (f"{start.astimezone(CAIRO):{form}}" for start in (gap.starts[0], gap.starts[-1]))
        made.add_row(gap.symbol, gap.interval, gap.kind, first, last, f"{len(gap.starts):,}", gap.why)
    if len(report.gaps) > MOST_ROWS:
        made.add_row("...", "", f"{len(report.gaps) - MOST_ROWS:,} more", "", "", "", "--json has all")
    for symbol, newest in report.stale.items():
        last_bar = f"{newest.astimezone(CAIRO):%Y-%m-%d %H:%M}" if newest else "never"
        made.add_row(symbol, "", "stale", "", last_bar, "", f"no bar in {STALE_SESSIONS} sessions")
    return made


def parser(description: str) -> argparse.ArgumentParser:
    """The options that gaps and backfill share."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--from", dest="first", type=dt.date.fromisoformat, metavar="DATE", help=f"default: {DAYS_BACK} days back")
    made.add_argument(
        "--to", dest="last", type=dt.date.fromisoformat, metavar="DATE", help="default: the last session that is over"
    )
    made.add_argument("--symbols", type=lambda text: text.upper().split(","), metavar="A,B", help="default: source.symbols")
    made.add_argument("--interval", choices=INTERVALS, action="append", help="may be repeated; default: source.interval")
    return made


def chosen(
    arguments: argparse.Namespace, settings: Settings, at: dt.datetime
) -> tuple[list[Series], dt.date, dt.date, dt.datetime]:
    """What the options ask for: series, first and last date, and by when a period must have been over."""
    over = at - dt.timedelta(minutes=settings.source.egxpy.after_close_minutes)
    last = arguments.last or egx().last_over(over).date
    first = arguments.first or last - dt.timedelta(days=DAYS_BACK)
    if first > last:
        raise SettingsError(f"--from {first} is after --to {last}")
    symbols = arguments.symbols or settings.source.symbols
    return (
        [(symbol, interval) for symbol in symbols for interval in arguments.interval or [settings.source.interval]],
        first,
        last,
        over,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser("What is missing in the archive, by the exchange's calendar.")
    options.add_argument("--json", action="store_true", help="for programs")
    given = options.parse_args(arguments)
    try:
        settings = load()
        report = check(settings, *chosen(given, settings, now()))
    except (ConnectorError, SettingsError) as error:
        print(f"egx: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        console = Console(width=None if sys.stdout.isatty() else 130)
        if report.gaps or report.stale:
            console.print(table(report))
        else:
            console.print(f"Nothing is missing, {report.first} to {report.last}: {len(report.series)} series.")
        if report.unconfirmed:
            text = "of the sessions, or their Ramadan hours, are expected, not confirmed: see docs/calendar.md."
            console.print(f"{report.unconfirmed} {text}")
    return 1 if report.gaps or report.stale else 0


if __name__ == "__main__":
    sys.exit(main())

"""What is missing in the archive, by the exchange's calendar (docs/egxpy.md says how quiet minutes are told from gaps).

    python -m dataflows.gaps [--from 2026-05-01] [--to 2026-05-31] [--symbols COMI,ETEL] [--interval "1 Minute"] [--json]

Ends with status 0 where nothing is missing, 1 where something is, 2 where it could not be told.
"""

from __future__ import annotations

import argparse
import datetime as dt
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
IMPROBABLE: Final = 1e-6  # of a session to have such a long quiet run by chance
ALWAYS: Final = 0.98  # from this share of its bars on, a 5 or 30 Minute bar's absence is no quiet
DAILY_TOLERANCE: Final = 0.02  # of a day's volume, which may hold trades that no minute holds
_DATED: Final[tuple[Interval, ...]] = ("Daily", "Weekly", "Monthly")
_COARSER: Final[dict[Interval, tuple[Interval, ...]]] = {
    "1 Minute": ("5 Minute", "30 Minute", "Daily"),
    "5 Minute": ("30 Minute", "Daily"),
    "30 Minute": ("Daily",),
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
    """session (no bar of it at all), bars (some of a session), or unfinished."""
    why: str
    starts: tuple[dt.datetime, ...]

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
    """Sessions that the calendar only expects."""

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
            and (interval == "Daily" or period(interval, start.astimezone(CAIRO).date())[1] <= self._last)
        ]
        missing = {start: "no bar" for start in expected if period(interval, start.astimezone(CAIRO).date()) not in have}
        return list(_join(symbol, interval, "session", missing, expected))

    def _intraday(self, symbol: str, interval: Interval, bars: Mapping[dt.datetime, Bar], quiet: set[dt.datetime]) -> list[Gap]:
        until = traded_until(symbol)
        per_session = [
            (session, list(self._calendar.expected(interval, session.date, session.date)))
            for session in self._sessions
            if session.close <= self._over and (until is None or session.date < until)
        ]
        rates = [sum(start in bars for start in expected) / len(expected) for _, expected in per_session]
        usual = statistics.median(traded) if (traded := [rate for rate in rates if rate]) else 0.0
        found: list[Gap] = []
        for (session, expected), rate in zip(per_session, rates, strict=True):
            if not rate:
                if not quiet.issuperset(expected):
                    found.append(Gap(symbol, interval, "session", "no bar", tuple(s for s in expected if s not in quiet)))
                continue
            absent = [start for start in expected if start not in bars and start not in quiet]
            why = self._missing(symbol, interval, session, expected, absent, max(rate, usual / 2), usual)
            found += _join(symbol, interval, "bars", why, expected)
        return found

    def _missing(
        self,
        symbol: str,
        interval: Interval,
        session: Session,
        expected: Starts,
        absent: Starts,
        rate: float,
        usual: float,
    ) -> Why:
        """The absent bars of a session that were not just quiet."""
        why: Why = {}
        explained: set[dt.datetime] = set()
        minutes = MINUTES[interval]
        for finer, width in MINUTES.items():
            if width < minutes:
                of = self._archived.get((symbol, finer), {})
                for start in absent:
                    if any(start + n * width * _MINUTE in of for n in range(minutes // width)):
                        why[start] = f"{finer} bars are there"
        for coarser in _COARSER[interval]:
            for whole in self._archived.get((symbol, coarser), {}).values():
                span = self._span(coarser, whole, session)
                inside = [start for start in absent if span and span[0] <= start < span[1] and start not in explained]
                if not inside or not span or whole.volume is None or not whole.is_final:
                    continue
                parts = self._archived.get((symbol, interval), {}).items()
                volumes = [bar.volume for start, bar in parts if span[0] <= start < span[1]]
                if None in volumes:
                    continue
                left = whole.volume - sum(volume or 0 for volume in volumes)
                if left > whole.volume * (DAILY_TOLERANCE if coarser == "Daily" else 0):
                    for start in inside:
                        why.setdefault(start, f"the {coarser} bar has {left:,} shares more")
                else:
                    explained.update(inside)  # nothing was traded in them
                if coarser != "Daily":
                    explained.update(inside)
        left_over = [start for start in absent if start not in explained and start not in why]
        if minutes >= 5 and usual >= ALWAYS:
            why.update((start, "it trades in nearly every one") for start in left_over)
        else:
            why.update(self._improbable(symbol, interval, session, expected, set(left_over), rate))
        return why

    def _span(self, interval: Interval, bar: Bar, session: Session) -> tuple[dt.datetime, dt.datetime] | None:
        """Start and end of a bar, if it is of the session."""
        if interval == "Daily":
            return (session.open, session.close) if bar.datetime.astimezone(CAIRO).date() == session.date else None
        if not session.open <= bar.datetime < session.close:
            return None
        return bar.datetime, bar.datetime + MINUTES[interval] * _MINUTE

    def _improbable(
        self, symbol: str, interval: Interval, session: Session, expected: Starts, absent: set[dt.datetime], rate: float
    ) -> Why:
        """Runs of absent bars that chance does not make: the symbol's own, and those of the whole market."""
        why: Why = {}
        for run in _runs(expected, absent):
            if len(expected) * (1 - rate) ** len(run) < IMPROBABLE:
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
                if len(expected) * chance ** len(run) < IMPROBABLE:
                    why.update((start, f"none of {len(shares)} symbols has one") for start in run)
        return why


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


def check(settings: Settings, series: Sequence[Series], first: dt.date, last: dt.date, over: dt.datetime) -> Report:
    """The report of an archive.

    :arg series: what to check; those without an interval in the archive count as wholly missing.
    :arg over: aware; what was over by then is checked.
    :raises ConnectorError: the archive cannot be read.
    """
    calendar = egx()
    source = settings.source
    symbols = list(dict.fromkeys(symbol for symbol, _ in series))
    archived = read(store(settings), source.exchange, symbols, first, last, over + DAY)
    quiet = Quiet(settings.path(settings.ingest.state), source.kind, source.exchange)
    checker = Checker(archived, calendar, first, last, over)
    report = Report(first, last, list(series))
    for symbol, interval in series:
        report.gaps += checker.gaps(symbol, interval, quiet.starts(symbol, interval))
    report.stale = _stale(archived, symbols, calendar, first, over)
    report.unconfirmed = sum(not calendar.known(session.date) for session in calendar.sessions(first, last))
    return report


def _stale(
    archived: Archived, symbols: Iterable[str], calendar: Calendar, first: dt.date, over: dt.datetime
) -> dict[str, dt.datetime | None]:
    """The symbols of which nothing came for STALE_SESSIONS sessions, but for those that trade no more."""
    back = [
        session
        for session in calendar.sessions_back(over.astimezone(CAIRO).date())
        if session.date >= first and session.close <= over
    ]
    if len(back) < STALE_SESSIONS:
        return {}
    since = back[STALE_SESSIONS - 1].open
    stale = {}
    for symbol in symbols:
        until = traded_until(symbol)
        newest = max((start for (name, _), bars in archived.items() if name == symbol for start in bars), default=None)
        if (newest is None or newest < since) and (until is None or until > since.astimezone(CAIRO).date()):
            stale[symbol] = newest
    return stale


def table(report: Report) -> Table:
    made = Table(title=f"{report.missing:,} bars missing, {report.first} to {report.last}", pad_edge=False)
    for header in ("Symbol", "Interval", "What", "From (Cairo)", "To (Cairo)", "Bars", "Why"):
        made.add_column(header, justify="right" if header == "Bars" else "left", overflow="fold")
    for gap in report.gaps:
        form = "%Y-%m-%d" if gap.interval in _DATED else "%Y-%m-%d %H:%M"
        first, last = (f"{start.astimezone(CAIRO):{form}}" for start in (gap.starts[0], gap.starts[-1]))
        made.add_row(gap.symbol, gap.interval, gap.kind, first, last, f"{len(gap.starts):,}", gap.why)
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
            console.print(f"{report.unconfirmed} of the sessions are expected, not confirmed: see docs/calendar.md.")
    return 1 if report.gaps or report.stale else 0


if __name__ == "__main__":
    sys.exit(main())

"""Fetches what `dataflows.gaps` finds missing, and nothing else, and publishes it through Kafka like any bar.

    python -m dataflows.backfill [--from 2026-05-01] [--to 2026-05-31] [--symbols COMI,ETEL] [--interval "1 Minute"] [--again]

It may be stopped and run again: what is in the archive by then is no gap any more. What the source does not have either is
remembered as quiet; --again asks for that too. Ends with status 0 where every gap was filled or is quiet, 1 where some are
left or it was stopped before all was published, 2 on an error.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bytewax.dataflow import Dataflow
from bytewax.run import cli_main
from msgspec.structs import replace

from connectors.errors import ConnectorError
from connectors.polling import Poll
from dataflows import gaps, process, sources
from dataflows.archive import archive
from dataflows.archived import Series
from dataflows.bar import CAIRO, Bar, Interval
from dataflows.calendar import MINUTES, Calendar, egx, period
from dataflows.gaps import Gap
from dataflows.ingest import ingest
from dataflows.live import live
from dataflows.quiet import Quiet
from dataflows.settings import EMBEDDED, Settings, SettingsError, load
from dataflows.sources import SourceError, egxpy

log = logging.getLogger(__name__)


@dataclass
class Wanted:
    """The bars that one series lacks, and what became of them."""

    symbol: str
    interval: Interval
    missing: set[dt.datetime]
    """Their starts by the calendar; the source's own start of a week or month may differ."""
    traded: set[dt.datetime] = field(default_factory=set)
    """Those of sessions in which the symbol traded, as its Daily bar says: they are never quiet."""
    found: set[dt.datetime] = field(default_factory=set)
    """Those that the source has; they are not yet published."""
    taken: int = 0
    """The bars that it has of them."""
    quiet: set[dt.datetime] = field(default_factory=set)

    @property
    def left(self) -> set[dt.datetime]:
        return self.missing - self.found - self.quiet

    def take(self, bars: Iterable[Bar]) -> list[Bar]:
        """Those of some bars that are missing; only final ones, as all that is missing is over."""
        by_period = {_key(self.interval, start): start for start in self.missing}
        taken = []
        for bar in bars:
            start = by_period.get(_key(self.interval, bar.datetime))
            if start is not None and bar.is_final:
                self.found.add(start)
                taken.append(bar)
        self.taken += len(taken)
        return taken

    def settle(self, oldest: dt.datetime | None, *, whole: bool = False) -> None:
        """What the source has not, from its `oldest` bar on; `whole`: there was never an older one."""
        reached = {start for start in self.missing if whole or (oldest is not None and start >= oldest)}
        self.quiet = reached - self.found - self.traded


def _key(interval: Interval, start: dt.datetime) -> object:
    return start if interval in MINUTES else period(interval, start.astimezone(CAIRO).date())


def wanted(found: Iterable[Gap]) -> dict[Series, Wanted]:
    """The gaps by series."""
    made: dict[Series, Wanted] = {}
    for gap in found:
        of = made.setdefault((gap.symbol, gap.interval), Wanted(gap.symbol, gap.interval, set()))
        of.missing.update(gap.starts)
        if gap.traded:
            of.traded.update(gap.starts)
    return made


def bars_back(calendar: Calendar, interval: Interval, since: dt.datetime, now: dt.datetime) -> int:
    """How many of the newest bars to ask for, to see the one that started at `since`: no more than a source gives.

    A few more than the calendar expects: a bar that straddles the auction, a session nobody announced.
    """
    first, last = since.astimezone(CAIRO).date(), now.astimezone(CAIRO).date()
    expected = sum(1 for _ in calendar.expected(interval, first, last))
    sessions = sum(1 for _ in calendar.sessions(first, last))
    return min(expected + (sessions if interval in MINUTES else 0) + 5, egxpy.MOST_BARS)


def from_egxpy(settings: Settings, lacking: Mapping[Series, Wanted], quiet: Quiet) -> Poll[Bar]:
    """Asks TradingView for the newest bars of each series, as far back as its oldest gap.

    Where they do not reach it, for as many as it gives: sessions may have been longer than the calendar knows. If these
    begin with the same bar, there were no older days, weeks or months; of minutes TradingView may just keep no more.
    """
    egxpy.check_installed()

    def bars(stop: threading.Event) -> Iterator[list[Bar]]:
        with egxpy.TradingView(settings, stop) as tradingview:
            done = 0
            for interval in dict.fromkeys(interval for _, interval in lacking):
                of = {symbol: each for (symbol, name), each in lacking.items() if name == interval}
                now = process.now()
                oldest = min(start for each in of.values() for start in each.missing)
                began: dict[str, dt.datetime] = {}
                for count in (bars_back(egx(), interval, oldest, now), egxpy.MOST_BARS):
                    short = []
                    for batch in filter(None, tradingview.poll(list(of), interval, count, now)):
                        each, first = of[batch[0].symbol], batch[0].datetime
                        before = began.get(each.symbol)
                        yield each.take(bar for bar in batch if before is None or bar.datetime < before)
                        if count < egxpy.MOST_BARS and min(each.missing) < first:
                            began[each.symbol] = first
                            short.append(each.symbol)
                            continue
                        each.settle(first, whole=interval not in MINUTES and first == before)
                        done += 1
                        _answered(each, quiet, f"[{done}/{len(lacking)}]")
                    of = {symbol: of[symbol] for symbol in short}

    return bars


def from_poll(poll: Poll[Bar], lacking: Mapping[Series, Wanted], quiet: Quiet) -> Poll[Bar]:
    """Goes through all that a source of another kind has."""

    def bars(stop: threading.Event) -> Iterator[list[Bar]]:
        oldest: dict[Series, dt.datetime] = {}
        for batch in poll(stop):
            taken: list[Bar] = []
            for bar in batch:
                series = (bar.symbol, bar.interval)
                if series in lacking:
                    oldest[series] = min(bar.datetime, oldest.get(series, bar.datetime))
                    taken += lacking[series].take([bar])
            yield taken
        if stop.is_set():
            return
        for number, (series, each) in enumerate(lacking.items(), 1):
            each.settle(oldest.get(series))
            _answered(each, quiet, f"[{number}/{len(lacking)}]")

    return bars


def _answered(each: Wanted, quiet: Quiet, number: str) -> None:
    text = f"{number} {each.symbol} {each.interval}: {len(each.found)} of {len(each.missing)} missing bars"
    if each.quiet:
        text += f", {len(each.quiet)} the source does not have"
    if lost := each.left & each.traded:
        text += f", {len(lost)} that it has lost: the Daily bar has volume"
    if beyond := each.left - each.traded:
        text += f", {len(beyond)} out of its reach"
    log.info("%s", text)
    if each.quiet:
        quiet.note(each.symbol, each.interval, each.quiet)


def run(settings: Settings, lacking: Mapping[Series, Wanted]) -> int:
    """Publishes what the source has of them, and returns how many bars are in Kafka: fewer than it has when it was stopped.

    With the in-process broker all legs run, for only they can read it, and the archive has them too.
    """
    quiet = gaps.quiet(settings)
    if settings.source.kind == "egxpy":
        poll = from_egxpy(settings, lacking, quiet)
    else:
        once = replace(settings, source=replace(settings.source, follow=False))
        poll = from_poll(sources.build(once)[0], lacking, quiet)
    runs: list[process.Run] = []

    def publish(flow: Dataflow, run: process.Run) -> None:
        runs.append(run)
        ingest(flow, run, poll, again=True)

    legs: dict[str, Any] = {"ingest": publish}
    if settings.kafka.bootstrap_servers == EMBEDDED:
        legs |= {"live": live, "archive": archive}
    start: Callable[[Any], None] = cli_main
    start(process.start(**legs))
    return runs[0].progress.published


def main(arguments: Sequence[str] | None = None) -> int:
    options = gaps.parser("Fetch what is missing in the archive.")
    options.add_argument("--again", action="store_true", help="ask for what the source did not have, too")
    given = options.parse_args(arguments)
    try:
        settings = load()
        chosen = gaps.chosen(given, settings, process.now())
        report = gaps.check(settings, *chosen, again=given.again)
        lacking = wanted(report.gaps)
        if not lacking:
            print(f"Nothing is missing, {report.first} to {report.last}.")
            return 0
        print(f"{report.missing:,} bars of {len(lacking)} series are missing, {report.first} to {report.last}.", flush=True)
        published = run(settings, lacking)
    except (ConnectorError, SettingsError, SourceError) as error:
        print(f"egx: {error}", file=sys.stderr)
        return 2
    unpublished = sum(each.taken for each in lacking.values()) - published
    quiet, left = (sum(len(getattr(each, name)) for each in lacking.values()) for name in ("quiet", "left"))
    print(f"{'Stopped: ' if unpublished else ''}{published:,} bars published, {quiet:,} quiet, {left + unpublished:,} left.")
    return 1 if left or unpublished else 0


if __name__ == "__main__":
    sys.exit(main())

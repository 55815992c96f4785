"""Bars of the Egyptian Exchange from TradingView, by way of egxpy, which must not be trusted (docs/egxpy.md).

Each symbol is asked for in a process of its own with a deadline, several at a time; what fails is tried again with backoff
until the symbol's deadline. A symbol without bars is reported once a day and asked for less and less often.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec
import tenacity

from connectors.polling import Poll
from connectors.workers import Died, Overran, Workers
from dataflows.bar import CAIRO, EARLIEST, Bar, Interval, Rejected, from_fields
from dataflows.calendar import Calendar, Session, egx, period
from dataflows.schedule import Schedule, SystemClock, polls
from dataflows.settings import ROOT, Settings
from dataflows.sources import SourceError
from dataflows.symbols import ended

log = logging.getLogger(__name__)

MOST_BARS: Final = 5_000  # TradingView gives no more at once
PASSING: Final = ("unreachable", "silent", "dropped")  # kinds of failure that may pass by themselves within seconds
_HOUR: Final = dt.timedelta(hours=1)
_DAY: Final = dt.timedelta(days=1)
_IDLE: Final = dt.timedelta(minutes=20)  # a wait from which on the process that asks is ended in between
_WORDS: Final = {
    "unknown": "TradingView knows no such symbol",
    "refused": "TradingView refuses it",
    "empty": "TradingView has no bars of it",
    "silent": "TradingView does not answer",
    "dropped": "TradingView broke off",
    "unreachable": "TradingView cannot be reached",
    "unexpected": "the answer is not what it should be",
}


class NoBars(Exception):
    """Why a symbol has no bars: `kind` is a key of _WORDS."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(f"{_WORDS.get(kind, kind)}: {why}")
        self.kind = kind
        self.passing = kind in PASSING and not why.startswith("HTTP 4")


@dataclass
class _Trouble:
    """A symbol that gave no bars: how often in a row, when to ask again, and whether it may pass by itself."""

    failures: int = 0
    again: dt.datetime = EARLIEST
    passing: bool = False


class TradingView:
    """The source: asks by egxpy in child processes. A context manager; leaving it ends the processes."""

    def __init__(self, settings: Settings, stop: threading.Event, calendar: Calendar | None = None) -> None:
        """:arg stop: when set, what is under way is given up. Raises SourceError where egxpy is not installed."""
        check_installed()
        self._source, self._options, self._stop = settings.source, settings.source.egxpy, stop
        self._calendar = calendar or egx()
        self._workers = Workers(_command(self._options.data_url, self._options.sign_in_url), _environment())
        self._threads = ThreadPoolExecutor(self._options.parallel, thread_name_prefix="egxpy")
        self._troubles: dict[str, _Trouble] = {}
        self._reported: dict[tuple[str, str], dt.date] = {}
        """What, and which kind of report of it -> when it was made last."""
        self._token: str | None = None
        self._signed_in_on: dt.date | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.close()  # whatever waits for an answer fails now
        self._threads.shutdown(wait=True, cancel_futures=True)

    def rest(self) -> None:
        """Ends the child processes until the next question."""
        self._workers.rest()

    def poll(self, symbols: Sequence[str], interval: Interval, count: int, now: dt.datetime) -> Iterator[list[Bar]]:
        """The newest `count` bars of each symbol, as each comes; symbols that failed lately come last.

        Those that still have to wait are left out; silent ones only while the exchange is open, as there are few polls else.
        Where nobody answers it is the source that is silent: the poll is given up, and no symbol has failed. A poll takes no
        longer than the time between two, and what it did not ask for comes first in the next one.

        :arg now: aware; the time of the poll.
        """
        is_open = self._calendar.open_session(now) is not None
        waits = {symbol for symbol in symbols if (of := self._trouble(symbol)).again > now and (is_open or not of.passing)}
        due = sorted((symbol for symbol in symbols if symbol not in waits), key=lambda symbol: self._trouble(symbol).failures)
        self._sign_in(now)
        today = now.astimezone(CAIRO).date()
        if self._calendar.session(today) and not self._calendar.hours_known(today):
            self._report(
                "calendar", "hours", "today's Ramadan hours are not known: see docs/calendar.md for where to add them", now
            )
        seconds = max(self._source.poll_seconds, self._options.deadline_seconds)
        ends = time.monotonic() + seconds
        waiting: dict[Future[list[list[float | None]]], str] = {
            self._threads.submit(self.ask, symbol, interval, count): symbol for symbol in due
        }
        alive = False  # whether TradingView has said anything
        mute: list[tuple[str, NoBars]] = []
        while waiting and not self._stop.is_set():
            done, _ = wait(waiting, timeout=0.1, return_when=FIRST_COMPLETED)
            for future in done:
                symbol = waiting.pop(future)
                try:
                    rows = future.result()
                except NoBars as error:
                    if error.kind in PASSING:
                        mute.append((symbol, error))
                    else:
                        alive = True
                        self._failed(symbol, error, now)
                except Died:
                    return  # asked to stop
                else:
                    alive = True
                    yield self.to_bars(symbol, interval, rows, now)
            if not alive and (why := self._dead([error for _, error in mute], len(due))):
                self._report("source", "dead", f"{why}; the poll was given up, the next one asks again", now)
                break
            if waiting and time.monotonic() >= ends:
                text = f"the poll was ended after {seconds:g} s; the next one begins with the {len(waiting)} symbols that it left"
                self._report("source", "slow", text, now)
                break
        for future in waiting:
            future.cancel()
        for symbol, failure in mute if alive else ():
            self._failed(symbol, failure, now)

    def _dead(self, failures: Sequence[NoBars], due: int) -> str | None:
        """Why the source itself fails, if so many failures of a poll without an answer say that it does."""
        unreachable = [error for error in failures if error.kind == "unreachable"]
        if unreachable and len(unreachable) >= min(self._options.parallel, due):
            return str(unreachable[0])
        if failures and len(failures) >= min(2 * self._options.parallel, due):
            return f"TradingView answers for none of {len(failures)} symbols"
        return None

    def ask(self, symbol: str, interval: Interval, count: int) -> list[list[float | None]]:
        """The newest `count` bars of a symbol as TradingView has them, tried again until the symbol's deadline.

        A row is the bar's start in epoch seconds, open, high, low, close and volume. Raises NoBars, and Died when stopped.
        """
        deadline = time.monotonic() + self._options.deadline_seconds
        request = {"symbol": symbol, "exchange": self._source.exchange, "interval": interval, "bars": count, "token": self._token}

        before: NoBars | None = None

        def attempt() -> list[list[float | None]]:
            nonlocal before
            seconds = min(self._options.timeout_seconds, max(deadline - time.monotonic(), 0.5))
            try:
                return self._attempt(request, seconds)
            except NoBars as error:
                if error.kind == "silent" and seconds < self._options.timeout_seconds and before is not None:
                    raise before from None  # cut short by the deadline: the reason is what the attempt before met
                before = error
                raise

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, NoBars) and error.passing),
            stop=tenacity.stop_any(
                tenacity.stop_before_delay(self._options.deadline_seconds - 0.5), tenacity.stop_when_event_set(self._stop)
            ),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=5),
            sleep=tenacity.sleep_using_event(self._stop),
            reraise=True,
        )(attempt)

    def _attempt(self, request: dict[str, Any], seconds: float) -> list[list[float | None]]:
        try:
            answer = self._workers.ask(request, seconds)
        except Overran as error:
            raise NoBars("silent", str(error)) from None
        except Died as error:
            if self._stop.is_set():
                raise
            raise NoBars("dropped", str(error)) from None
        if "failed" in answer:
            raise NoBars(answer["failed"], answer["why"])
        rows: list[list[float | None]] = answer["rows"]
        return rows

    def to_bars(self, symbol: str, interval: Interval, rows: Sequence[Sequence[float | None]], now: dt.datetime) -> list[Bar]:
        """The rows as bars, oldest first; those of a period that was over `delay_minutes` ago are final.

        A value that cannot be (a price not above 0, a volume below it) is absent; a row without a believable time is left out.
        """
        self._answered(symbol, now)
        known = now - dt.timedelta(minutes=self._options.delay_minutes)
        bars = []
        for start, *values in rows:
            prices: list[Any] = [value if value is not None and value > 0 else None for value in values[:4]]
            volume = values[4] if values[4] is not None and values[4] >= 0 else None
            fields = {
                "symbol": symbol,
                "exchange": self._source.exchange,
                "interval": interval,
                "datetime": dt.datetime.fromtimestamp(start or 0, dt.UTC).isoformat(),
                **dict(zip(("open", "high", "low", "close"), prices, strict=True)),
                "volume": None if volume is None else round(volume),
                "source": "egxpy",
            }
            bar = from_fields(fields, now)
            if isinstance(bar, Rejected):
                self._report_symbol(symbol, "bar", f"a bar was left out: {bar.reason}", now)
                continue
            bars.append(bar)
        return [with_final(bar, self._calendar, known) for bar in bars]

    def _sign_in(self, now: dt.datetime) -> None:
        """Fetches a token once a day, where a login is set; without one the data is what everybody sees.

        Where that fails the token of before serves on. What may pass is tried again by the next poll, a refusal the next day.
        """
        options, today = self._options, now.astimezone(CAIRO).date()
        if options.username is None or options.password is None or self._signed_in_on == today:
            return
        request = {"username": options.username, "password": options.password.get_secret_value()}
        try:
            answer = self._workers.ask(request, options.timeout_seconds)
        except (Overran, Died) as error:
            answer = {"failed": "unreachable", "why": str(error)}
        self._token = answer.get("token", self._token)
        if answer.get("failed") not in PASSING:
            self._signed_in_on = today
        if "failed" in answer and not self._stop.is_set():
            goes_on = "with the token of before" if self._token else "without it: the data is delayed"
            self._report("sign-in", answer["failed"], f"{answer['why']}; going on {goes_on}", now)

    def _trouble(self, symbol: str) -> _Trouble:
        return self._troubles.setdefault(symbol, _Trouble())

    def _answered(self, symbol: str, now: dt.datetime) -> None:
        trouble = self._troubles.pop(symbol, None)
        if trouble is not None and trouble.failures:
            self._report_symbol(symbol, "well", "has bars again", now, logging.INFO)

    def _failed(self, symbol: str, error: NoBars, now: dt.datetime) -> None:
        trouble = self._trouble(symbol)
        trouble.failures += 1
        trouble.passing = error.kind in PASSING
        times = 2.0 ** min(trouble.failures - 1, 20)
        if trouble.passing:
            pause = min(dt.timedelta(seconds=self._source.poll_seconds * (times - 1)), _HOUR)
        else:
            pause = min(_HOUR * times, _DAY)
        trouble.again = now + pause
        when = f"after {trouble.again.astimezone(CAIRO):%d %B %H:%M} (Cairo)" if pause else "at the next poll"
        hint = ended()[symbol].hint if symbol in ended() else "Check source.symbols" if error.kind == "unknown" else ""
        self._report_symbol(symbol, "fails", f"{error}; asked again {when}{f'. {hint}' if hint else ''}", now)

    def _report_symbol(self, symbol: str, kind: str, message: str, now: dt.datetime, level: int = logging.WARNING) -> None:
        self._report(symbol, kind, message, now, level, symbol=symbol)

    def _report(self, about: str, kind: str, message: str, now: dt.datetime, level: int = logging.WARNING, **extra: str) -> None:
        """Says it, once a day. :arg extra: what the log's record has besides."""
        today = now.astimezone(CAIRO).date()
        if self._reported.get((about, kind)) != today:
            self._reported[about, kind] = today
            log.log(level, "%s: %s", about, message, extra={"leg": "ingest", **extra})


def with_final(bar: Bar, calendar: Calendar, known: dt.datetime) -> Bar:
    """The bar, marked as final if its period was over at `known` (aware)."""
    return msgspec.structs.replace(bar, is_final=calendar.is_final(bar.interval, bar.datetime, known))


def check_installed() -> None:
    """Raises SourceError, with what to do, where egxpy or the library below it is missing."""
    for module, step in (("tvDatafeed", "`just setup`"), ("egxpy", "`just egxpy`")):
        if importlib.util.find_spec(module) is None:
            raise SourceError(
                f"source.kind is egxpy, but {module} is not installed: run {step} (docs/egxpy.md says why it is extra)"
            )


def _command(data_url: str | None, sign_in_url: str | None) -> list[str]:
    quiet = ["-W", "ignore::SyntaxWarning"]  # of tvDatafeed's patterns, told on 3.12 when it is first compiled
    return [sys.executable, *quiet, "-m", "dataflows.sources.egxpy_worker", data_url or "", sign_in_url or ""]


def _environment() -> dict[str, str]:
    """This process's, without what is none of the library's business, in UTC."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EGX_", "AWS_", "SNOWFLAKE_"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "TZ": "UTC", "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}


def schedule(settings: Settings, calendar: Calendar) -> Schedule:
    """The polls of the settings."""
    options = settings.source.egxpy
    return Schedule(
        calendar,
        dt.timedelta(seconds=settings.source.poll_seconds),
        dt.timedelta(minutes=options.before_open_minutes),
        dt.timedelta(minutes=options.after_close_minutes),
        options.always,
    )


def poll(settings: Settings) -> Poll[Bar]:
    """The source of the settings: one poll, or, where it follows, one whenever the schedule says. Raises SourceError."""
    check_installed()
    source, calendar = settings.source, egx()
    plan = schedule(settings, calendar)

    def bars(stop: threading.Event) -> Iterator[list[Bar]]:
        clock, over = SystemClock(stop), None
        lacking = set(source.symbols)  # the symbols of which the last bar of the session is not there yet
        with TradingView(settings, stop, calendar) as tradingview:
            for now in polls(plan, clock, lambda: not lacking):
                before, over = over, plan.just_over(now)
                if over is None or over != before:
                    lacking.update(source.symbols)
                # One that has answered is asked once more: where it does too, it is not the source that is silent.
                witness = itertools.islice((symbol for symbol in source.symbols if symbol not in lacking), 1)
                asked = [*(symbol for symbol in source.symbols if symbol in lacking), *witness]
                for batch in tradingview.poll(asked, source.interval, source.bars, now):
                    if over and batch and _is_of(batch[-1], over):
                        lacking.discard(batch[-1].symbol)
                    yield batch
                if not source.follows:
                    return
                if plan.due(now, clock.now(), not lacking) - clock.now() > _IDLE:
                    tradingview.rest()

    return bars


def _is_of(bar: Bar, session: Session) -> bool:
    first, last = period(bar.interval, bar.datetime.astimezone(CAIRO).date())
    return first <= session.date <= last

"""The source egxpy: the real client library against a loopback TradingView, in each of its moods."""

from __future__ import annotations

import datetime as dt
import importlib.util
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from connectors.kafka import InProcessBroker, Record, Writer
from dataflows.bar import CAIRO, INTERVALS, Bar, Interval, encode
from dataflows.calendar import MINUTES
from dataflows.settings import ROOT, SYMBOLS, Egxpy, Secret, Settings, SettingsError, Source, load
from dataflows.sources import SourceError, egxpy
from dataflows.sources.egxpy import NoBars, TradingView, _command
from dataflows.symbols import ended
from tests.dataflows.jobs import Folder, minute_bars, record_row, row
from tests.fake_tradingview import CODES, FakeSignIn, FakeTradingView, walk

pytestmark = [pytest.mark.usefixtures("egxpy"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
ZONES = ["UTC", "Africa/Cairo", "America/New_York", "Pacific/Honolulu"]
HASTY = {"timeout_seconds": 2, "deadline_seconds": 2}
WITH_BARS = ["ok", "split_frame", "live", "no_volume", "mid_no_volume", "null_close", "zero_volume"]
WITHOUT = {
    "empty": "empty",
    "unknown": "unknown",
    "denied": "refused",
    "heartbeat_only": "silent",
    "silent": "silent",
    "chatty": "silent",
    "drop_mid": "dropped",
    "hang_up": "dropped",
    "garbage": "unexpected",
}


def of_name(symbol: str) -> str:
    """A symbol's mode is its name; any other symbol is well."""
    return symbol.lower() if symbol.lower() in {*WITH_BARS, *WITHOUT} else "ok"


def settings(url: str | None, **source: Any) -> Settings:
    options = Egxpy(**{"data_url": url, "timeout_seconds": 2, "deadline_seconds": 3, **source.pop("egxpy", {})})
    Settings.file = ROOT / "no.yaml"
    return Settings(source=Source(**{"kind": "egxpy", "interval": "Daily", **source}, egxpy=options))


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTradingView]:
    with FakeTradingView(of_name) as made:
        yield made


@pytest.fixture(scope="module")
def tradingview(server: FakeTradingView, egxpy: str) -> Iterator[TradingView]:
    with TradingView(settings(server.url), threading.Event()) as made:
        yield made


def polled(
    source: TradingView, symbols: Sequence[str], now: dt.datetime = NOW, interval: Interval = "Daily"
) -> dict[str, list[Bar]]:
    return {bars[0].symbol: bars for bars in source.poll(symbols, interval, 5, now)}


def truth(mode: str, interval: Interval, count: int) -> list[list[float | None]]:
    """What the server has, with None for what it does not say."""
    code = next(code for code, name in CODES.items() if name == interval)
    rows = [list(row) for row in walk(NOW)(f"EGX:{mode.upper()}", code, count)]
    if mode == "no_volume":
        rows = [[*row[:5], None] for row in rows]
    elif mode == "mid_no_volume":
        rows[1][5] = None
    elif mode == "null_close":
        rows[1][4] = None
    elif mode == "zero_volume":
        rows[1][5] = 0.0
    return rows


# Answers


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("mode", WITH_BARS)
def test_bars_come_as_the_server_has_them(tradingview: TradingView, mode: str, interval: Interval) -> None:
    assert tradingview.ask(mode.upper(), interval, 5) == truth(mode, interval, 5)


@pytest.mark.parametrize("interval", ["Daily", "1 Minute"])
@pytest.mark.parametrize(("mode", "kind"), WITHOUT.items())
def test_no_answer_takes_longer_than_its_deadline_and_each_says_why(
    tradingview: TradingView, mode: str, kind: str, interval: Interval
) -> None:
    tradingview.ask("OK", interval, 1)  # the process is there
    began = time.monotonic()
    with pytest.raises(NoBars) as caught:
        tradingview.ask(mode.upper(), interval, 5)
    assert time.monotonic() - began < 3 + 3
    assert caught.value.kind == kind


@pytest.mark.parametrize("zone", ZONES)
def test_every_mood_is_the_same_in_every_time_zone_of_the_host(
    server: FakeTradingView, zone: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All moods side by side in one poll; one server refuses all."""
    symbols = [mode.upper() for mode in (*WITH_BARS, *WITHOUT)]
    options = {"parallel": len(symbols), "timeout_seconds": 3, "deadline_seconds": 4}
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        with FakeTradingView("refuse") as refusing, TradingView(settings(refusing.url), threading.Event()) as source:
            assert polled(source, ["COMI"]) == {}
        with TradingView(settings(server.url, egxpy=options), threading.Event()) as source:
            daily = polled(source, symbols)
            minutes = polled(source, symbols[: len(WITH_BARS)], interval="1 Minute")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [f"{bar.datetime:%Y-%m-%dT%H:%M%z}" for bar in daily["OK"]] == [
        "2026-06-24T07:00+0000",
        "2026-06-25T07:00+0000",
        "2026-06-28T07:00+0000",
        "2026-06-29T07:00+0000",
        "2026-06-30T07:00+0000",
    ]
    assert [f"{bar.datetime:%H:%M}" for bar in minutes["OK"]] == ["11:25", "11:26", "11:27", "11:28", "11:29"]
    for interval, answers in (("Daily", daily), ("1 Minute", minutes)):
        assert answers.keys() == {mode.upper() for mode in WITH_BARS}
        for symbol, bars in answers.items():
            assert {(bar.exchange, bar.interval, bar.source) for bar in bars} == {("EGX", interval, "egxpy")}
            values = [[bar.datetime.timestamp(), bar.open, bar.high, bar.low, bar.close, bar.volume] for bar in bars]
            assert values == truth(symbol.lower(), interval, 5)  # type: ignore[arg-type]
    said = dict(message.split(": ", 1) for message in caplog.messages)
    assert said.keys() == {"source", *(mode.upper() for mode in WITHOUT)}
    assert "HTTP 429" in said["source"]
    for mode, kind in WITHOUT.items():
        assert said[mode.upper()].startswith(egxpy._WORDS[kind])


def test_five_thousand_minutes_come_at_once(server: FakeTradingView, egxpy: str) -> None:
    patient = settings(server.url, egxpy={"timeout_seconds": 60, "deadline_seconds": 90})
    with TradingView(patient, threading.Event()) as tradingview:
        rows = tradingview.ask("OK", "1 Minute", 5_000)
    assert rows == truth("ok", "1 Minute", 5_000)
    assert ("EGX:OK", "1", 5_000) in server.asked


def test_heartbeats_are_answered(server: FakeTradingView, tradingview: TradingView) -> None:
    before = server.heartbeats_answered
    with pytest.raises(NoBars):
        tradingview.ask("HEARTBEAT_ONLY", "Daily", 5)
    assert server.heartbeats_answered > before


# Finality


@pytest.mark.parametrize(
    ("time_in_cairo", "daily", "last_minute"),
    [("14:29", False, False), ("14:44", False, False), ("14:45", True, True), ("20:00", True, True)],
)
def test_a_bar_is_final_once_its_period_is_over_and_the_data_is_that_far(
    tradingview: TradingView, time_in_cairo: str, daily: bool, last_minute: bool
) -> None:
    """The data is 15 minutes late; the session of 30 June 2026 closes at 14:30."""
    now = dt.datetime.combine(dt.date(2026, 6, 30), dt.time.fromisoformat(time_in_cairo), CAIRO).astimezone(dt.UTC)
    for interval, final in (("Daily", daily), ("1 Minute", last_minute)):
        bars = tradingview.to_bars("OK", interval, truth("ok", interval, 3), now)  # type: ignore[arg-type]
        assert bars[-1].is_final is final
        assert bars[0].is_final is (True if interval == "Daily" else time_in_cairo != "14:29")


def test_a_value_that_cannot_be_is_absent_and_a_time_that_cannot_be_is_left_out(
    tradingview: TradingView, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [[NOW.timestamp(), -1.0, 2.0, 0.0, 1.5, -5.0], [NOW.timestamp() + 1e6, 1.0, 1.0, 1.0, 1.0, 1.0]]
    (bar,) = tradingview.to_bars("OK", "Daily", rows, NOW)
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == (None, 2.0, None, 1.5, None)
    assert "OK: a bar was left out: 2026-07-12" in caplog.text


# A poll of many


def test_a_poll_gives_the_good_ones_and_reports_the_others_once_a_day(
    server: FakeTradingView, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    symbols = ["UNKNOWN", "SILENT", "COMI", "EMPTY", "ETEL", "HANG_UP", "NO_VOLUME", "DENIED", "SWDY"]
    with TradingView(settings(server.url, poll_seconds=300), threading.Event()) as source:
        assert polled(source, symbols).keys() == {"COMI", "ETEL", "SWDY", "NO_VOLUME"}
        reported = {record.getMessage().split(":")[0] for record in caplog.records}
        assert reported == {"UNKNOWN", "SILENT", "EMPTY", "HANG_UP", "DENIED"}
        assert {(vars(record)["leg"], vars(record)["symbol"]) for record in caplog.records} == {("ingest", s) for s in reported}
        assert "UNKNOWN: TradingView knows no such symbol" in caplog.text
        assert "Check source.symbols" in caplog.text
        caplog.clear()
        asked = len(server.asked)
        assert polled(source, symbols, NOW + dt.timedelta(minutes=5)).keys() == {"COMI", "ETEL", "SWDY", "NO_VOLUME"}
        assert caplog.messages == []
        assert {symbol for symbol, _, _ in server.asked[asked:]} == {
            "EGX:COMI",
            "EGX:ETEL",
            "EGX:SWDY",
            "EGX:NO_VOLUME",
            "EGX:SILENT",
        }
        polled(source, symbols, NOW + dt.timedelta(days=1, minutes=1))
        assert {message.split(":")[0] for message in caplog.messages} == {"UNKNOWN", "SILENT", "EMPTY", "HANG_UP", "DENIED"}


def test_a_symbol_that_fails_is_asked_less_and_less_often_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with FakeTradingView("unknown") as server, TradingView(settings(server.url), threading.Event()) as source:
        asked = []
        for hour in range(72):
            before = server.connections
            polled(source, ["COMI"], NOW + dt.timedelta(hours=hour))
            if server.connections > before:
                asked.append(hour)
        assert asked == [0, 1, 3, 7, 15, 31, 55]
        server.mode = "ok"
        assert polled(source, ["COMI"], NOW + dt.timedelta(hours=79)).keys() == {"COMI"}
        assert caplog.messages[-1] == "COMI: has bars again"
        assert polled(source, ["COMI"], NOW + dt.timedelta(hours=79, minutes=5)).keys() == {"COMI"}


def test_a_symbol_that_comes_and_goes_is_reported_once_a_day(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    mood = "ok"
    modes = ["hang_up", "ok", "silent", "ok", "hang_up", "ok"]
    with (
        FakeTradingView(lambda symbol: mood if symbol == "ETEL" else "ok") as server,
        TradingView(settings(server.url, egxpy=HASTY), threading.Event()) as source,
    ):
        for number, mood in enumerate(modes):  # noqa: B007 - the server reads it
            polled(source, ["COMI", "ETEL"], NOW + number * dt.timedelta(minutes=5))
        first, second = caplog.messages
        assert first.startswith("ETEL: TradingView broke off")
        assert second == "ETEL: has bars again"
        mood = "hang_up"
        polled(source, ["COMI", "ETEL"], NOW + dt.timedelta(days=1))
        assert len(caplog.messages) == 3


def test_a_bar_that_cannot_be_is_reported_once_a_day(tradingview: TradingView, caplog: pytest.LogCaptureFixture) -> None:
    bad = [[(NOW + dt.timedelta(days=900)).timestamp(), 1.0, 1.0, 1.0, 1.0, 1.0]]
    for minutes in (0, 5, 10):
        tradingview.to_bars("BAD", "Daily", bad, NOW + dt.timedelta(days=400, minutes=minutes))
    (message,) = caplog.messages
    assert message.startswith("BAD: a bar was left out")


def test_a_silent_source_is_not_held_against_its_symbols(caplog: pytest.LogCaptureFixture) -> None:
    """Fewer symbols than would be asked at once; all are asked by the next poll, and there as soon as it speaks again."""
    symbols = [f"S{number}" for number in range(13)]
    morning = dt.datetime(2026, 6, 30, 8, tzinfo=dt.UTC)
    options = {"parallel": 13, "timeout_seconds": 4, "deadline_seconds": 4}
    with FakeTradingView("silent") as server, TradingView(settings(server.url, egxpy=options), threading.Event()) as source:
        for number in range(2):
            assert polled(source, symbols, morning + number * dt.timedelta(minutes=5)) == {}
        server.mode = "ok"
        assert polled(source, symbols, morning + dt.timedelta(minutes=15)).keys() == set(symbols)
    (message,) = caplog.messages
    assert message == "source: TradingView answers for none of 13 symbols; the poll was given up, the next one asks again"


def test_a_silent_symbol_waits_while_the_exchange_is_open_and_is_asked_after_the_close() -> None:
    morning = dt.datetime(2026, 6, 30, 8, tzinfo=dt.UTC)
    with FakeTradingView(of_name) as server, TradingView(settings(server.url, egxpy=HASTY), threading.Event()) as source:

        def asked(now: dt.datetime) -> bool:
            before = len(server.asked)
            polled(source, ["COMI", "HANG_UP", "SILENT"], now)
            return "EGX:SILENT" in {symbol for symbol, _, _ in server.asked[before:]}

        moments = [morning + minutes * dt.timedelta(minutes=1) for minutes in (0, 5, 8)]
        assert [asked(moment) for moment in moments] == [True, True, False]
        assert asked(dt.datetime(2026, 6, 30, 11, 55, tzinfo=dt.UTC)) is True
        assert asked(dt.datetime(2026, 6, 30, 11, 56, tzinfo=dt.UTC)) is True  # however often it has failed


def test_a_source_that_falls_silent_in_a_poll_ends_it_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """Symbol by symbol it would take 76 / 8 * 4 s; the next poll begins with those that were not asked."""
    symbols = [f"S{number}" for number in range(80)]
    options = {"parallel": 8, "timeout_seconds": 4, "deadline_seconds": 4}
    with (
        FakeTradingView() as server,
        TradingView(settings(server.url, poll_seconds=5, egxpy=options), threading.Event()) as source,
    ):
        polled(source, ["COMI"])  # the child process has started
        began = time.monotonic()
        got = 0
        for _ in source.poll(symbols, "Daily", 5, NOW):
            got += 1
            if got == 4:
                server.mode = "silent"
        assert time.monotonic() - began < 5 + 10
        assert "source: the poll was ended after 5 s; the next one begins with the" in caplog.text
        left = set(symbols) - {symbol.removeprefix("EGX:") for symbol, _, _ in server.asked}
        assert left
        server.mode = "ok"
        before, got_later = len(server.asked), set()
        for later in range(1, 10):  # a busy machine does not get through all in one poll
            got_later |= {bars[0].symbol for bars in source.poll(symbols, "Daily", 5, NOW + later * dt.timedelta(minutes=5))}
            if got_later == set(symbols):
                break
        assert got_later == set(symbols)
        asked = dict.fromkeys(symbol.removeprefix("EGX:") for symbol, _, _ in server.asked[before:])
        assert left <= set([*asked][: len(left) + got + 16])


class Afternoon:
    """A clock that starts before a close; `then` is called when its time has come."""

    def __init__(self, then: Callable[[dt.datetime], None]) -> None:
        self.time, self._then = dt.datetime(2026, 6, 30, 11, 24, tzinfo=dt.UTC), then

    def now(self) -> dt.datetime:
        return self.time

    def wait(self, seconds: float) -> bool:
        self.time += dt.timedelta(seconds=seconds)
        self._then(self.time)
        return self.time >= dt.datetime(2026, 6, 30, 12, 20, tzinfo=dt.UTC)


def test_the_poll_after_the_close_is_repeated_for_what_it_did_not_get(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source refuses all until 15:02; a symbol that stays silent holds up nothing, and one that is well is asked with it."""
    with FakeTradingView("refuse") as server:

        def then(now: dt.datetime) -> None:
            if now >= dt.datetime(2026, 6, 30, 12, 2, tzinfo=dt.UTC):
                server.mode = of_name

        clock = Afternoon(then)
        monkeypatch.setattr(egxpy, "SystemClock", lambda stop: clock)
        options = settings(server.url, symbols=["COMI", "ETEL", "HANG_UP"], bars=5)
        got: dict[str, set[str]] = {}
        for bars in egxpy.poll(options)(threading.Event()):
            got.setdefault(f"{clock.time.astimezone(CAIRO):%H:%M}", set()).add(bars[0].symbol)
            assert bars[-1].is_final
    assert got.pop("15:05") == {"COMI", "ETEL"}
    assert got == {"15:10": {"COMI"}, "15:15": {"COMI"}}


def test_ramadan_hours_that_nobody_knows_are_warned_of_once_a_day(
    tradingview: TradingView, caplog: pytest.LogCaptureFixture
) -> None:
    for day, hour in ((14, 8), (14, 9), (15, 8)):
        polled(tradingview, ["OK"], dt.datetime(2027, 2, day, hour, tzinfo=dt.UTC))
    assert [message.partition(":")[0] for message in caplog.messages] == ["calendar", "calendar"]


def test_hints_come_from_the_seeds() -> None:
    assert ended()["ESRS"].hint == "It was delisted in 2025-03: take it out of source.symbols"
    assert ended()["OTMT"].hint == "It trades as OIH since 2018-08-09: change source.symbols"


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"ws://127.0.0.1:{probe.getsockname()[1]}/"


@pytest.mark.parametrize("case", ["refuse", "closed", "no such host", "silent"])
def test_a_dead_source_ends_the_poll_in_bounded_time_and_with_one_report(case: str, caplog: pytest.LogCaptureFixture) -> None:
    symbols = [f"S{number}" for number in range(40)]
    with FakeTradingView("refuse" if case == "refuse" else "silent") as server:
        url = {"refuse": server.url, "silent": server.url, "closed": closed_port()}.get(case, "ws://no.such.host.invalid/")
        options = {"parallel": 8, "timeout_seconds": 1, "deadline_seconds": 2}
        with TradingView(settings(url, egxpy=options), threading.Event()) as source:
            source._workers.ask({"symbol": "", "exchange": "", "interval": "", "bars": 0}, 30)  # it is started
            began = time.monotonic()
            assert polled(source, symbols) == {}
            took = time.monotonic() - began
        if case == "silent":  # a few may be silent for a reason of their own
            assert took < 2 * 2 + 6
            assert "source: TradingView answers for none of 16 symbols" in caplog.text
            assert len({symbol for symbol, _, _ in server.asked}) <= 24
        else:
            assert took < 2 + 5
            (message,) = caplog.messages
            assert message.startswith("source: TradingView cannot be reached: ")
            assert ("HTTP 429" in message) == (case == "refuse")
        if case == "refuse":
            assert server.refused <= 16  # it is asked to slow down, so nobody tries again at once


def test_a_source_that_comes_back_is_polled_whole() -> None:
    with FakeTradingView("refuse") as server, TradingView(settings(server.url), threading.Event()) as source:
        assert polled(source, SYMBOLS) == {}
        server.mode = "ok"
        assert polled(source, SYMBOLS, NOW + dt.timedelta(minutes=5)).keys() == set(SYMBOLS)


def test_asked_to_stop_it_stops_at_once(server: FakeTradingView) -> None:
    stop = threading.Event()
    with TradingView(settings(server.url, egxpy={"timeout_seconds": 60, "deadline_seconds": 120}), stop) as source:
        polls = source.poll(["COMI", "SILENT"], "Daily", 5, NOW)
        assert next(polls)[0].symbol == "COMI"
        stop.set()
        began = time.monotonic()
        assert list(polls) == []
    assert time.monotonic() - began < 5
    assert server.wait_until_closed()


PATIENT = {"timeout_seconds": 10, "deadline_seconds": 20}  # as is the default


def test_sixteen_symbols_in_ten_seconds_from_a_source_that_takes_one() -> None:
    with (
        FakeTradingView(delay_seconds=1) as server,
        TradingView(settings(server.url, egxpy=PATIENT), threading.Event()) as source,
    ):
        assert polled(source, SYMBOLS[:1]).keys() == {SYMBOLS[0]}  # the child process has started, which takes two seconds or so
        began = time.monotonic()
        assert polled(source, SYMBOLS).keys() == set(SYMBOLS)
        assert time.monotonic() - began < 10
        assert server.most_open == 8


@pytest.mark.once
def test_two_hundred_and_fifty_symbols_in_a_minute_from_a_source_that_takes_a_second() -> None:
    symbols = [f"S{number}" for number in range(250)]
    with (
        FakeTradingView(delay_seconds=1) as server,
        TradingView(settings(server.url, egxpy=PATIENT), threading.Event()) as source,
    ):
        began = time.monotonic()
        assert polled(source, symbols).keys() == set(symbols)
        assert time.monotonic() - began < 60


def test_the_dead_do_not_delay_the_living() -> None:
    """The living are all there while two are still silent."""
    options, stop = {"timeout_seconds": 60, "deadline_seconds": 120}, threading.Event()
    living = [f"S{number}" for number in range(10)]
    with FakeTradingView(of_name) as server, TradingView(settings(server.url, egxpy=options), stop) as source:
        polls = source.poll(["SILENT", "CHATTY", *living], "Daily", 5, NOW)
        began = time.monotonic()
        assert {next(polls)[0].symbol for _ in living} == set(living)
        assert time.monotonic() - began < 60
        assert server.open == 2
        stop.set()
        assert list(polls) == []


# Nothing is left


def below(but: Sequence[psutil.Process] = ()) -> list[psutil.Process]:
    """The processes of the source below this one, but for some."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if process not in but and "egxpy_worker" in " ".join(process.cmdline())]


@pytest.mark.once
def test_five_hundred_polls_leak_no_process_no_socket_and_no_memory(server: FakeTradingView) -> None:
    symbols = itertools.cycle(["COMI", "UNKNOWN", "EMPTY", "DENIED", "GARBAGE", "NO_VOLUME"])
    me = psutil.Process()
    before = below()
    rounds = 500
    with TradingView(settings(server.url), threading.Event()) as source:
        seen: list[tuple[int, int, int]] = []
        for number in range(rounds):
            now = NOW + dt.timedelta(days=2 * number)  # each symbol is due again
            symbol = next(symbols)
            assert len(list(source.poll([symbol], "Daily", 3, now))) == (symbol in ("COMI", "NO_VOLUME"))
            if number >= rounds // 2:
                seen.append((me.num_fds(), threading.active_count(), len(below(before))))
        # A round may see a connection that is just being closed; what leaks grows from round to round.
        first, last = seen[:5], seen[-5:]
        assert all(min(a) <= max(b) for a, b in zip(zip(*last, strict=True), zip(*first, strict=True), strict=True))
        (child,) = below(before)
        assert child.num_fds() < 20
        assert child.memory_info().rss < 300_000_000
    assert server.wait_until_closed()
    assert below(before) == []


def test_nothing_is_left_when_the_process_is_killed(server: FakeTradingView, tmp_path: Path) -> None:
    script = (
        "import threading; from dataflows.settings import load; from dataflows.sources.egxpy import poll\n"
        "for bars in poll(load())(threading.Event()): print('bars', flush=True)\n"
    )
    options = {"EGX_SOURCE__KIND": "egxpy", "EGX_SOURCE__SYMBOLS": '["COMI","SILENT"]', "EGX_SOURCE__EGXPY__DATA_URL": server.url}
    options |= {"EGX_SOURCE__EGXPY__TIMEOUT_SECONDS": "100", "EGX_SOURCE__EGXPY__DEADLINE_SECONDS": "100"}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**clean_environment(), **options, "PYTHONPATH": path}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "bars\n"
        children = psutil.Process(asking.pid).children(recursive=True)
        assert len(children) >= 2  # the child process, and the fork that asks for SILENT
        asking.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert server.wait_until_closed()


def test_a_process_that_is_asked_to_end_in_a_poll_ends_at_once(server: FakeTradingView, tmp_path: Path) -> None:
    environment = {
        **clean_environment(),
        "EGX_SOURCE__KIND": "egxpy",
        "EGX_SOURCE__SYMBOLS": '["COMI","SILENT"]',
        "EGX_SOURCE__EGXPY__DATA_URL": server.url,
        "EGX_SOURCE__EGXPY__TIMEOUT_SECONDS": "200",
        "EGX_SOURCE__EGXPY__DEADLINE_SECONDS": "200",
        "EGX_INGEST__STATE": str(tmp_path / "ingest.sqlite"),
        "EGX_LIVE__SQLITE": str(tmp_path / "live.sqlite"),
        "EGX_ARCHIVE__URL": str(tmp_path / "archive"),
    }
    asked = len(server.asked)
    command = [sys.executable, "-m", "bytewax.run", "dataflows.main"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        while "EGX:SILENT" not in {symbol for symbol, _, _ in server.asked[asked:]} and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        running.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    assert time.monotonic() - began < 30  # and not two hundred
    assert server.wait_until_closed()


# Login


def test_a_login_gets_a_token_once_a_day_and_every_question_carries_it() -> None:
    before = below()
    with FakeTradingView() as server, FakeSignIn("nadia", "a secret", "token-of-nadia") as page:
        options = {"username": "nadia", "password": Secret("a secret"), "sign_in_url": page.url}
        with TradingView(settings(server.url, egxpy=options), threading.Event()) as source:
            for minutes in range(3):
                polled(source, ["COMI", "ETEL"], NOW + dt.timedelta(minutes=5 * minutes))
            (child,) = below(before)
            assert "a secret" not in " ".join(child.cmdline()) + json.dumps(child.environ())
        assert page.attempts == 1
        assert set(server.tokens) == {"token-of-nadia"}


def test_a_login_that_fails_is_reported_and_the_poll_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with FakeTradingView() as server, FakeSignIn("nadia", "a secret", "token-of-nadia") as page:
        options = {"username": "nadia", "password": Secret("wrong"), "sign_in_url": page.url}
        with TradingView(settings(server.url, egxpy=options), threading.Event()) as source:
            for minutes in (0, 5):
                assert polled(source, ["COMI"], NOW + dt.timedelta(minutes=minutes)).keys() == {"COMI"}
        assert page.attempts == 1  # a refusal is no reason to try again the same day
        assert set(server.tokens) == {"unauthorized_user_token"}
        (message,) = caplog.messages
        assert message.startswith("sign-in: the sign-in failed")
        assert "wrong" not in message.replace("a wrong name", "")


def test_a_sign_in_page_that_is_down_is_asked_again_and_the_token_of_before_serves_on(caplog: pytest.LogCaptureFixture) -> None:
    with FakeTradingView() as server, FakeSignIn("nadia", "a secret", "first") as page:
        options = {"username": "nadia", "password": Secret("a secret"), "sign_in_url": page.url}
        with TradingView(settings(server.url, egxpy=options), threading.Event()) as source:

            def token(now: dt.datetime) -> str:
                assert polled(source, ["COMI"], now).keys() == {"COMI"}
                return server.tokens[-1]

            assert token(NOW) == "first"
            page.status, page.token = 503, "second"
            tomorrow = NOW + dt.timedelta(days=1)
            assert token(tomorrow) == token(tomorrow + dt.timedelta(minutes=5)) == "first"
            page.status = 200
            assert token(tomorrow + dt.timedelta(minutes=10)) == "second"
            assert page.attempts == 4
    (message,) = caplog.messages
    assert message == ("sign-in: the sign-in page cannot be reached: HTTP 503; going on with the token of before")


# Settings


@pytest.mark.parametrize("missing", ["egxpy", "tvDatafeed"])
def test_what_is_not_installed_is_said_in_one_line(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[[str], Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else found(name))
    with pytest.raises(SourceError, match=rf"{missing} is not installed: run `just \w+`") as caught:
        egxpy.poll(settings(None))
    assert "\n" not in str(caught.value)


def test_another_egxpy_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "egxpy").mkdir()
    (tmp_path / "egxpy" / "__init__.py").touch()
    (tmp_path / "egxpy" / "download.py").write_text("def get_OHLCV_data(symbol, exchange, interval, n_bars): ...\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        _command(None, None), env=environment, input="", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "egx: the egxpy that is installed is not the one this was made for: run `just egxpy`\n"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AFTER_CLOSE_MINUTES", "15", "after_close_minutes is above delay_minutes"),
        ("DEADLINE_SECONDS", "5", "deadline_seconds"),
        ("USERNAME", "nadia", "EGX_SOURCE__EGXPY__PASSWORD"),
        ("DATA_URL", "http://x", "ws://"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"EGX_SOURCE__EGXPY__{name}", value)
    load.cache_clear()
    with pytest.raises(SettingsError, match=message):
        load()
    load.cache_clear()


def test_a_password_in_the_file_is_refused_with_the_name_to_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("source: {egxpy: {password: abc}}")
    monkeypatch.setenv("EGX_CONFIG", str(tmp_path / "config.yaml"))
    load.cache_clear()
    with pytest.raises(SettingsError, match="EGX_SOURCE__EGXPY__PASSWORD") as caught:
        load()
    assert "abc" not in str(caught.value)
    load.cache_clear()


def test_it_follows_unless_told_not_to() -> None:
    assert settings(None).source.follows
    assert not settings(None, follow=False).source.follows
    assert not settings(None, kind="simulated").source.follows
    assert MINUTES.keys() == set(INTERVALS) - {"Daily", "Weekly", "Monthly"}


# The whole platform


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("EGX_")}


def archived(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.rglob("*.json")) for line in file.read_text().splitlines()]


def test_from_the_poll_to_the_archive(server: FakeTradingView, tmp_path: Path) -> None:
    """3 good symbols, 1 unknown, 1 silent, 1 refused, 1 without volume: one poll; run again, nothing is published twice."""
    symbols = ["COMI", "UNKNOWN", "ETEL", "SILENT", "DENIED", "NO_VOLUME", "SWDY"]
    environment = {
        **clean_environment(),
        "EGX_SOURCE__KIND": "egxpy",
        "EGX_SOURCE__SYMBOLS": json.dumps(symbols),
        "EGX_SOURCE__BARS": "5",
        "EGX_SOURCE__FOLLOW": "false",
        "EGX_SOURCE__EGXPY__DATA_URL": server.url,
        "EGX_SOURCE__EGXPY__TIMEOUT_SECONDS": "2",
        "EGX_SOURCE__EGXPY__DEADLINE_SECONDS": "3",
        "EGX_INGEST__STATE": str(tmp_path / "ingest.sqlite"),
        "EGX_LIVE__SQLITE": str(tmp_path / "live.sqlite"),
        "EGX_ARCHIVE__URL": str(tmp_path / "archive"),
    }
    command = [sys.executable, "-m", "bytewax.run", "dataflows.main"]
    for _ in range(2):
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert "UNKNOWN: TradingView knows no such symbol" in done.stderr
        assert "SILENT: TradingView does not answer" in done.stderr
        assert "DENIED: TradingView refuses it" in done.stderr
        records = archived(tmp_path / "archive")
        assert {symbol: sum(record["symbol"] == symbol for record in records) for symbol in symbols} == {
            **dict.fromkeys(["COMI", "ETEL", "SWDY", "NO_VOLUME"], 5),
            **dict.fromkeys(["UNKNOWN", "SILENT", "DENIED"], 0),
        }
        assert {record["volume"] for record in records if record["symbol"] == "NO_VOLUME"} == {None}
        assert all(record["volume"] > 0 for record in records if record["symbol"] == "COMI")


def test_a_silent_source_stalls_no_other_leg(server: FakeTradingView, tmp_path: Path) -> None:
    """What others publish reaches both stores while the poll waits for an answer."""
    broker = InProcessBroker()
    for topic in ("egx_market_data", "egx_market_data.dead_letter"):
        broker.create_topic(topic)
    patient = {"data_url": server.url, "timeout_seconds": 200, "deadline_seconds": 200}
    folder = Folder(
        tmp_path,
        source={"kind": "egxpy", "symbols": ["SILENT", "CHATTY"], "egxpy": patient},
        kafka={"bootstrap_servers": broker.bootstrap_servers},
    )
    asked = len(server.asked)
    bars = minute_bars(["COMI", "ETEL"], 500)
    with folder.start("main") as job:
        job.wait_for(lambda: {"EGX:SILENT", "EGX:CHATTY"} <= {s for s, _, _ in server.asked[asked:]}, "the questions")
        writer = Writer({"bootstrap.servers": broker.bootstrap_servers}, "egx_market_data", stop=threading.Event())
        writer.write([Record(bar.symbol.encode(), encode(bar)) for bar in bars])
        both = {"live": len(bars), "archived": len(bars)}
        job.wait_for(lambda: both.items() <= job.counts.items(), "the others' bars in both stores")
        assert server.open == 2
        assert job.end() == 0, job.output
    assert sorted(folder.live()) == sorted(map(record_row, folder.archived())) == sorted(map(row, bars))

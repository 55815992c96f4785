"""Bars removed from an archive, found again and brought back: exactly those."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from dataflows import backfill, gaps, process
from dataflows.backfill import Wanted, bars_back, from_egxpy, from_poll, wanted
from dataflows.bar import CAIRO, Bar, Interval
from dataflows.calendar import egx
from dataflows.gaps import Gap
from dataflows.quiet import Quiet
from dataflows.settings import ROOT, Egxpy, Settings, Source, load
from tests.fake_tradingview import FakeTradingView, walk

FIRST, LAST = dt.date(2025, 5, 4), dt.date(2025, 5, 29)
Key = tuple[str, str, str]


class Place:
    """A folder with settings and data, and the commands run in it."""

    def __init__(self, path: Path, **environment: str) -> None:
        self.path = path
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EGX_")}
        (path / "config.yaml").write_text("progress_seconds: 0\n")
        self.environment = {**clean, "EGX_CONFIG": str(path / "config.yaml"), **environment}

    def run(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def gaps(self, *arguments: str, status: int = 1) -> set[Key]:
        """The missing bars: symbol, interval and start; of more than one only the first and last."""
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
            for name in [name for name in os.environ if name.startswith("EGX_")]:
                patch.delenv(name)
            for name in self.environment:
                patch.setenv(name, self.environment[name])
            load.cache_clear()
            assert gaps.main(["--json", *arguments]) == status, out.getvalue()
        load.cache_clear()
        made = json.loads(out.getvalue())
        return {(gap["symbol"], gap["interval"], gap[end]) for gap in made["gaps"] for end in ("first", "last")}

    def records(self) -> list[dict[str, Any]]:
        """The archive's, latest version last."""
        lines = [line for file in (self.path / "data/archive").rglob("*.json") for line in file.read_text().splitlines()]
        return sorted(map(json.loads, lines), key=lambda record: record["ingestion_timestamp"])

    def bars(self) -> dict[Key, tuple[Any, ...]]:
        return {
            key(record): tuple(record[name] for name in ("open", "high", "low", "close", "volume", "is_final"))
            for record in self.records()
        }

    def remove(self, lost: Iterable[Key]) -> None:
        """Takes bars out of the archive, all their versions."""
        lost = set(lost)
        for file in (self.path / "data/archive").rglob("*.json"):
            kept = [line for line in file.read_text().splitlines() if key(json.loads(line)) not in lost]
            file.write_text("".join(f"{line}\n" for line in kept))


def key(record: dict[str, Any]) -> Key:
    return record["symbol"], record["interval"], record["datetime"].replace("Z", "+00:00")


def replay(folder: Path, seed: int = 1) -> Path:
    """A file of two symbols: days, minutes that are quiet now and then, and the five minutes they add up to."""
    chance = random.Random(seed)
    path = folder / "bars.ndjson"
    with path.open("w") as file:
        for symbol in ("COMI", "ETEL"):
            totals: dict[tuple[str, dt.datetime], int] = {}
            for start in egx().expected("1 Minute", FIRST, LAST):
                if chance.random() < 0.6:
                    volume = chance.randint(1, 5_000)
                    session = egx().session(start.astimezone(CAIRO).date())
                    assert session is not None
                    for whole in (("Daily", session.open), ("5 Minute", start - dt.timedelta(minutes=start.minute % 5))):
                        totals[whole] = totals.get(whole, 0) + volume
                    totals["1 Minute", start] = volume
            for (interval, start), volume in totals.items():
                price = round(chance.uniform(50, 60), 2)
                fields = dict.fromkeys(("open", "high", "low", "close"), price) | {"volume": volume, "symbol": symbol}
                file.write(json.dumps(fields | {"interval": interval, "datetime": start.isoformat()}) + "\n")
    return path


WINDOW = ["--from", FIRST.isoformat(), "--to", LAST.isoformat(), "--symbols", "COMI,ETEL"]
INTERVALS = ["--interval", "Daily", "--interval", "1 Minute", "--interval", "5 Minute"]


def test_what_was_removed_from_a_replay_is_found_and_comes_back(tmp_path: Path) -> None:
    place = Place(tmp_path, EGX_SOURCE__KIND="replay", EGX_SOURCE__REPLAY__PATH=str(replay(tmp_path)))
    place.run("bytewax.run", "dataflows.main")
    before = place.bars()
    assert place.gaps(*WINDOW, *INTERVALS, status=0) == set()

    days = sorted(found for found in before if found[1] == "Daily")
    minutes = sorted(found for found in before if found[1] == "1 Minute")
    whole_windows = [
        found for found in minutes if found[0] == "ETEL" and "2025-05-06T08:" in found[2] and found[2][14:15] in "12"
    ]
    lost = {*days[2:4], days[-1], *random.Random(2).sample(minutes, 40), *whole_windows}
    place.remove(lost)
    assert place.bars().keys() == before.keys() - lost
    found = place.gaps(*WINDOW, "--interval", "Daily")
    assert found == {found for found in lost if found[1] == "Daily"}

    assert "0 left" in place.run("dataflows.backfill", *WINDOW, *INTERVALS)
    assert place.bars() == before
    again = [key(record) for record in place.records()]
    assert len(again) == len(before)  # only what was missing came back, each once
    assert place.gaps(*WINDOW, *INTERVALS, status=0) == set()
    assert "Nothing is missing" in place.run("dataflows.backfill", *WINDOW, *INTERVALS)


def test_from_tradingview_exactly_the_gaps_come_back(tmp_path: Path, egxpy: str) -> None:
    end = dt.datetime.now(dt.UTC)
    over = egx().last_over(end - dt.timedelta(minutes=30))
    first = [session for session, _ in zip(egx().sessions_back(over.date), range(12), strict=False)][-1].date
    window = ["--from", first.isoformat(), "--to", over.date.isoformat()]

    def mode(symbol: str) -> str:
        return "unknown" if symbol == "GONE" else "ok"

    with FakeTradingView(mode, bars=walk(end)) as server:
        place = Place(
            tmp_path,
            EGX_SOURCE__KIND="egxpy",
            EGX_SOURCE__SYMBOLS='["COMI","SWDY","GONE"]',
            EGX_SOURCE__BARS="20",
            EGX_SOURCE__FOLLOW="false",
            EGX_SOURCE__EGXPY__DATA_URL=server.url,
        )
        place.run("bytewax.run", "dataflows.main")
        before = place.bars()
        window += ["--symbols", "COMI,SWDY"]
        assert place.gaps(*window, status=0) == set()
        lost = set(random.Random(3).sample(sorted(found for found in before if found[2][:10] >= first.isoformat()), 5))
        place.remove(lost)
        assert place.gaps(*window) >= lost
        server.asked.clear()
        out = place.run("dataflows.backfill", *window)
        assert "5 bars published, 0 quiet, 0 left" in out
        assert place.bars() == before
        assert len(place.records()) == len(before)
        assert {symbol for symbol, _, _ in server.asked} == {f"EGX:{symbol}" for symbol, _, _ in lost}
        assert max(count for _, _, count in server.asked) <= 20

        out = place.run("dataflows.backfill", "--symbols", "GONE", *window[:4], status=1)
        assert "GONE: TradingView knows no such symbol" in out
        assert "12 left" in out


def test_what_the_source_does_not_have_is_quiet_from_then_on(tmp_path: Path, egxpy: str) -> None:
    """A share that was suspended for a day: its bar is asked for once."""
    end = dt.datetime.now(dt.UTC)
    over = egx().last_over(end - dt.timedelta(minutes=30))
    suspended = [session for session, _ in zip(egx().sessions_back(over.date), range(4), strict=False)][-1]

    def bars(symbol: str, code: str, count: int) -> list[list[Any]]:
        return [row for row in walk(end)(symbol, code, count + 1) if row[0] != suspended.open.timestamp()][-count:]

    with FakeTradingView(bars=bars) as server:
        place = Place(
            tmp_path,
            EGX_SOURCE__KIND="egxpy",
            EGX_SOURCE__SYMBOLS='["COMI"]',
            EGX_SOURCE__BARS="40",
            EGX_SOURCE__FOLLOW="false",
            EGX_SOURCE__EGXPY__DATA_URL=server.url,
        )
        place.run("bytewax.run", "dataflows.main")
        assert place.gaps() == {("COMI", "Daily", suspended.open.isoformat())}
        assert "0 bars published, 1 quiet, 0 left" in place.run("dataflows.backfill")
        assert place.gaps(status=0) == set()
        asked = len(server.asked)
        assert "Nothing is missing" in place.run("dataflows.backfill")
        assert len(server.asked) == asked
        server.bars = walk(end)  # it was a fault of the source
        assert "1 bars published, 0 quiet, 0 left" in place.run("dataflows.backfill", "--again")
        assert place.gaps(status=0) == set()


def test_it_can_be_stopped_and_run_again(tmp_path: Path) -> None:
    place = Place(
        tmp_path, EGX_SOURCE__KIND="replay", EGX_SOURCE__REPLAY__PATH=str(replay(tmp_path)), EGX_SOURCE__REPLAY__SPEED="1e4"
    )
    place.environment["EGX_SOURCE__REPLAY__SPEED"] = "0"
    place.run("bytewax.run", "dataflows.main")
    before = place.bars()
    lost = {found for found in before if found[1] == "Daily"}
    place.remove(lost)
    place.environment["EGX_SOURCE__REPLAY__SPEED"] = "20000"  # a session in under a second
    window = [*WINDOW, "--interval", "Daily"]
    with subprocess.Popen(
        [sys.executable, "-m", "dataflows.backfill", *window], cwd=ROOT, env=place.environment, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert "bars of 2 series are missing" in running.stdout.readline()
        waited = threading.Event()
        while running.poll() is None and len(place.bars()) == len(before) - len(lost):
            waited.wait(0.05)
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=60)
    assert running.returncode == 1, out
    back = place.bars().keys() & lost
    assert back
    assert back < lost
    place.environment["EGX_SOURCE__REPLAY__SPEED"] = "0"
    assert f"{len(lost) - len(back)} bars published" in place.run("dataflows.backfill", *window)
    assert place.bars() == before


def test_dates_that_do_not_fit_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert backfill.main(["--from", "2025-06-01", "--to", "2025-05-01"]) == 2
    assert capsys.readouterr().err == "egx: --from 2025-06-01 is after --to 2025-05-01\n"


# Its parts


def bar(interval: Interval, start: dt.datetime, final: bool = True) -> Bar:
    return Bar("COMI", "EGX", interval, start, 1.0, 1.0, 1.0, 1.0, 1, None, "test", final)


def test_a_week_of_the_source_fills_the_week_of_the_calendar() -> None:
    sunday, monday = (dt.datetime(2025, 5, day, 7, tzinfo=dt.UTC) for day in (4, 5))
    lacking = Wanted("COMI", "Weekly", {sunday})
    assert lacking.take([bar("Weekly", monday, final=False)]) == []
    assert lacking.take([bar("Weekly", monday), bar("Weekly", monday + dt.timedelta(days=7))]) == [bar("Weekly", monday)]
    assert lacking.left == set()


def test_what_lies_before_the_oldest_bar_is_out_of_reach_unless_that_is_all_there_is() -> None:
    days = list(egx().expected("Daily", FIRST, LAST))
    lacking = Wanted("COMI", "Daily", {days[0], days[5]})
    lacking.settle(days[3])
    assert (lacking.quiet, lacking.left) == ({days[5]}, {days[0]})
    lacking.settle(days[3], whole=True)
    assert lacking.quiet == {days[0], days[5]}
    lacking.settle(None)
    assert lacking.quiet == set()


def test_what_the_daily_bar_contradicts_is_not_quiet() -> None:
    (start, *others) = list(egx().expected("1 Minute", FIRST, FIRST))[:9]
    contradicted = Gap("COMI", "1 Minute", "session", "no bar, but the Daily bar has volume", tuple(others), traded=True)
    lacking = wanted([contradicted, Gap("COMI", "1 Minute", "bars", "", (start,))])["COMI", "1 Minute"]
    lacking.settle(start)
    assert (lacking.quiet, lacking.left) == ({start}, set(others))


class Asked:
    """A backfill of one symbol from a loopback TradingView, without the legs."""

    def __init__(self, folder: Path, interval: Interval, missing: Iterable[dt.datetime], server: FakeTradingView) -> None:
        Settings.file = folder / "config.yaml"
        settings = Settings(source=Source(kind="egxpy", egxpy=Egxpy(data_url=server.url)))
        self.lacking = Wanted("COMI", interval, set(missing))
        poll = from_egxpy(settings, {("COMI", interval): self.lacking}, Quiet(folder / "ingest.sqlite", "egxpy", "EGX"))
        self.taken = [one.datetime for bars in poll(threading.Event()) for one in bars]
        self.counts = [count for _, _, count in server.asked]


@pytest.fixture
def evening(monkeypatch: pytest.MonkeyPatch) -> dt.datetime:
    """The time at which the source is asked, after a session."""
    at = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
    monkeypatch.setattr(process, "now", lambda: at)
    return at


@pytest.mark.usefixtures("egxpy")
@pytest.mark.parametrize(("interval", "quiet"), [("1 Minute", False), ("Daily", True)])
def test_what_is_older_than_all_bars_is_quiet_for_days_and_out_of_reach_for_minutes(
    tmp_path: Path, evening: dt.datetime, interval: Interval, quiet: bool
) -> None:
    """TradingView keeps minutes for a while only; of days it has all, so a share was not listed before."""
    starts = list(egx().expected(interval, evening.date() - dt.timedelta(days=20), evening.date()))
    kept = starts[len(starts) // 2 :]

    def bars(symbol: str, code: str, count: int) -> list[list[Any]]:
        return [row for row in walk(evening)(symbol, code, count) if row[0] >= kept[0].timestamp()]

    with FakeTradingView(bars=bars) as server:
        asked = Asked(tmp_path, interval, starts, server)
    assert asked.taken == kept
    assert asked.counts == [asked.counts[0], 5_000]
    beyond = set(starts[: len(starts) // 2])
    assert (asked.lacking.quiet, asked.lacking.left) == ((beyond, set()) if quiet else (set(), beyond))


@pytest.mark.usefixtures("egxpy")
def test_where_sessions_were_longer_than_the_calendar_knows_it_asks_for_more(tmp_path: Path, evening: dt.datetime) -> None:
    """From 9:30 to 15:00, of which the calendar was not told."""
    sessions = list(egx().sessions(evening.date() - dt.timedelta(days=20), evening.date()))
    minutes = [session.open + n * dt.timedelta(minutes=1) for session in sessions for n in range(-30, 300)]
    missing = list(egx().expected("1 Minute", sessions[0].date, sessions[0].date))

    def bars(symbol: str, code: str, count: int) -> list[list[Any]]:
        return [[start.timestamp(), 1.0, 1.0, 1.0, 1.0, 1.0] for start in minutes][-count:]

    with FakeTradingView(bars=bars) as server:
        asked = Asked(tmp_path, "1 Minute", missing, server)
    assert asked.taken == missing
    assert asked.counts == [asked.counts[0], 5_000]
    assert asked.lacking.left == set()


def test_stopped_after_the_last_answer_it_says_what_it_has_published(tmp_path: Path, egxpy: str) -> None:
    """What it has taken over from the source, and Kafka has not, is left."""
    first = egx().last_over(dt.datetime.now(dt.UTC) - dt.timedelta(days=4)).date
    with FakeTradingView(bars=walk(dt.datetime.now(dt.UTC))) as server:
        place = Place(
            tmp_path,
            EGX_SOURCE__KIND="egxpy",
            EGX_SOURCE__SYMBOLS='["COMI","ETEL"]',
            EGX_SOURCE__EGXPY__DATA_URL=server.url,
        )
        window = ["--interval", "1 Minute", "--from", first.isoformat()]
        with subprocess.Popen(
            [sys.executable, "-m", "dataflows.backfill", *window],
            cwd=ROOT,
            env=place.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            assert running.stderr is not None
            assert any("[2/2]" in line for line in running.stderr)
            running.send_signal(signal.SIGTERM)
            out, errors = running.communicate(timeout=60)
        last = out.splitlines()[-1]
        there = len(place.records())
        assert f"{there:,} bars published" in last, errors
        left = len(list(egx().expected("1 Minute", first, egx().last_over(dt.datetime.now(dt.UTC)).date))) * 2 - there
        assert f"{left:,} left" in last
        assert last.startswith("Stopped: ") is (left > 0)
        assert running.returncode == (1 if left else 0)


@pytest.mark.parametrize(("interval", "days"), [("Daily", 30), ("Weekly", 400), ("1 Minute", 12), ("30 Minute", 100)])
def test_enough_bars_are_asked_for_to_see_the_gap(interval: Interval, days: int) -> None:
    now = dt.datetime(2025, 12, 8, 20, tzinfo=dt.UTC)
    since = next(egx().expected(interval, now.date() - dt.timedelta(days=days), now.date()))
    count = bars_back(egx(), interval, since, now)
    assert (
        walk(now)("EGX:COMI", {"Daily": "1D", "Weekly": "1W", "1 Minute": "1", "30 Minute": "30"}[interval], count)[0][0]
        <= since.timestamp()
    )
    assert count < 5_000


def test_no_more_bars_are_asked_for_than_the_source_gives() -> None:
    now = dt.datetime(2025, 12, 8, 20, tzinfo=dt.UTC)
    assert bars_back(egx(), "1 Minute", dt.datetime(2025, 1, 5, tzinfo=dt.UTC), now) == 5_000


def test_what_is_quiet_is_remembered_for_each_source(tmp_path: Path) -> None:
    start = dt.datetime(2025, 5, 4, 7, tzinfo=dt.UTC)
    quiet = Quiet(tmp_path / "ingest.sqlite", "egxpy", "EGX")
    assert quiet.starts("COMI", "Daily") == set()
    quiet.note("COMI", "Daily", [start])
    quiet.note("COMI", "Daily", [start])
    assert quiet.starts("COMI", "Daily") == {start}
    assert quiet.starts("COMI", "1 Minute") == set()
    assert Quiet(tmp_path / "ingest.sqlite", "replay", "EGX").starts("COMI", "Daily") == set()


def test_a_poll_that_is_stopped_settles_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    start = dt.datetime(2025, 5, 4, 7, tzinfo=dt.UTC)
    lacking = {("COMI", "Daily"): Wanted("COMI", "Daily", {start})}
    quiet = Quiet(tmp_path / "ingest.sqlite", "replay", "EGX")

    def poll(stop: threading.Event) -> Any:
        yield [bar("Daily", start - dt.timedelta(days=3))]
        stop.set()

    assert [taken for taken in from_poll(poll, lacking, quiet)(stop) if taken] == []  # type: ignore[arg-type]
    assert quiet.starts("COMI", "Daily") == set()

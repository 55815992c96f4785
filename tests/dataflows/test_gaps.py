"""What counts as missing in an archive, and what as quiet."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.objects import Directory
from dataflows import archived as archive
from dataflows import gaps
from dataflows.archived import Archived
from dataflows.bar import CAIRO, Bar, Interval, encode
from dataflows.calendar import MINUTES, egx
from dataflows.gaps import Checker, Gap
from dataflows.settings import load

FIRST, LAST = dt.date(2025, 5, 4), dt.date(2025, 6, 25)  # with the long closures of Eid al-Adha in it
OVER = dt.datetime(2025, 6, 27, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
DATA = os.environ.get("EGX_DATA_DIR")


def bar(symbol: str, interval: Interval, start: dt.datetime, volume: int | None = 100, final: bool = True) -> Bar:
    return Bar(symbol, "EGX", interval, start, 1.0, 1.0, 1.0, 1.0, volume, start, "test", final)


def filled(archived: Archived, symbol: str, interval: Interval, starts: Iterable[dt.datetime], volume: int | None = 100) -> None:
    archived.setdefault((symbol, interval), {}).update((start, bar(symbol, interval, start, volume)) for start in starts)


def coarser(archived: Archived, symbol: str, finer: Interval, interval: Interval) -> None:
    """Adds the bars that the finer ones add up to."""
    sums: dict[dt.datetime, int] = {}
    for start, fine in archived[symbol, finer].items():
        if interval == "Daily":
            session = egx().session(start.astimezone(CAIRO).date())
            assert session is not None
            whole = session.open
        else:
            whole = start - dt.timedelta(minutes=start.minute % MINUTES[interval])
        sums[whole] = sums.get(whole, 0) + (fine.volume or 0)
    archived.setdefault((symbol, interval), {}).update(
        (start, bar(symbol, interval, start, volume)) for start, volume in sums.items()
    )


def traded(seed: str, share: float, first: dt.date = FIRST, last: dt.date = LAST) -> list[dt.datetime]:
    """The minutes of a symbol that trades in a share of them."""
    chance = random.Random(seed)
    return [start for start in egx().expected("1 Minute", first, last) if chance.random() < share]


def checked(
    archived: Archived, symbol: str = "COMI", interval: Interval = "1 Minute", quiet: set[dt.datetime] | None = None
) -> list[Gap]:
    return Checker(archived, egx(), FIRST, LAST, OVER).gaps(symbol, interval, quiet or set())


def starts(found: Iterable[Gap]) -> list[dt.datetime]:
    return [start for gap in found for start in gap.starts]


# Days, weeks, months


def test_a_whole_archive_has_no_gaps() -> None:
    archived: Archived = {}
    for interval in ("Daily", "Weekly", "Monthly", "1 Minute", "5 Minute", "30 Minute"):
        filled(archived, "COMI", interval, egx().expected(interval, FIRST, LAST))  # type: ignore[arg-type]
        assert checked(archived, interval=interval) == []  # type: ignore[arg-type]


@given(st.sets(st.integers(0, 30)))
def test_exactly_the_days_that_were_removed_are_found(removed: set[int]) -> None:
    days = list(egx().expected("Daily", FIRST, LAST))
    archived: Archived = {}
    filled(archived, "COMI", "Daily", (day for number, day in enumerate(days) if number not in removed))
    found = checked(archived, interval="Daily")
    assert starts(found) == [days[number] for number in sorted(removed) if number < len(days)]
    for gap in found:  # days that follow each other are one gap
        number = days.index(gap.starts[0])
        assert gap.starts == tuple(days[number : number + len(gap.starts)])


@pytest.mark.parametrize("interval", ["Weekly", "Monthly"])
def test_a_week_or_month_may_start_where_the_source_says(interval: Interval) -> None:
    archived: Archived = {}
    expected = list(egx().expected(interval, FIRST, LAST))
    filled(archived, "COMI", interval, (start + dt.timedelta(days=1) for start in expected))
    assert checked(archived, interval=interval) == []
    filled(archived, "ETEL", interval, expected[:1])
    over = expected[1:-1] if interval == "Monthly" else expected[1:]  # June is not over; its last week is: Thursday is a holiday
    assert starts(checked(archived, "ETEL", interval)) == over


@pytest.mark.parametrize(
    ("interval", "last", "count"),
    [("Weekly", "2026-11-19", 3), ("Weekly", "2026-11-18", 2), ("Monthly", "2026-10-29", 1), ("Monthly", "2026-10-28", 0)],
)
def test_a_week_or_month_is_missed_from_its_last_session_on(interval: Interval, last: str, count: int) -> None:
    """Not only once the weekend after it has passed."""
    to = dt.date.fromisoformat(last)
    over = dt.datetime.combine(to, dt.time(20), CAIRO)
    first = dt.date(2026, 10, 1) if interval == "Monthly" else dt.date(2026, 11, 1)
    assert len(starts(Checker({}, egx(), first, to, over).gaps("COMI", interval, set()))) == count


def test_a_session_that_is_not_over_is_not_missing() -> None:
    over = dt.datetime.combine(LAST, dt.time(13, 0), CAIRO)
    found = Checker({}, egx(), LAST, LAST, over).gaps("COMI", "Daily", set())
    assert found == []
    (gap,) = Checker({}, egx(), LAST, LAST, OVER).gaps("COMI", "Daily", set())
    assert gap.starts == tuple(egx().expected("Daily", LAST, LAST))


def test_a_symbol_that_was_delisted_is_not_expected() -> None:
    archived: Archived = {}
    assert checked(archived, "ESRS", "Daily") == []  # delisted in March 2025
    assert len(starts(checked(archived, "COMI", "Daily"))) == len(list(egx().expected("Daily", FIRST, LAST)))


def test_a_day_that_never_became_final_is_unfinished() -> None:
    archived: Archived = {}
    days = list(egx().expected("Daily", FIRST, LAST))
    filled(archived, "COMI", "Daily", days)
    archived["COMI", "Daily"][days[3]] = bar("COMI", "Daily", days[3], final=False)
    (gap,) = checked(archived, interval="Daily")
    assert (gap.kind, gap.starts) == ("unfinished", (days[3],))


# Minutes


def test_quiet_minutes_are_no_gaps() -> None:
    for share in (0.3, 0.6, 0.9):
        archived: Archived = {}
        filled(archived, "COMI", "1 Minute", traded(f"{share}", share))
        filled(archived, "ETEL", "1 Minute", traded(f"other {share}", share))
        assert checked(archived) == []


def test_a_session_without_a_minute_is_a_gap_and_so_are_two_as_one() -> None:
    archived: Archived = {}
    filled(
        archived,
        "COMI",
        "1 Minute",
        (start for start in traded("a", 0.6) if start.date() not in (dt.date(2025, 5, 7), dt.date(2025, 5, 8))),
    )
    (gap,) = checked(archived)
    assert gap.kind == "session"
    assert gap.starts == tuple(egx().expected("1 Minute", dt.date(2025, 5, 7), dt.date(2025, 5, 8)))


@pytest.mark.parametrize(("begin", "end"), [("11:00", "11:40"), ("13:30", "14:30"), ("10:00", "10:45")])
def test_a_run_that_chance_does_not_make_is_a_gap(begin: str, end: str) -> None:
    """As when a poll died in the middle, at the end or at the start of a session."""
    first, last = (dt.datetime.fromisoformat(f"2025-05-07 {time}").replace(tzinfo=CAIRO) for time in (begin, end))
    all_traded = traded("a", 0.6)
    archived: Archived = {}
    filled(archived, "COMI", "1 Minute", (start for start in all_traded if not first <= start < last))
    found = checked(archived)
    lost = [start for start in all_traded if first <= start < last]
    assert set(lost) <= set(starts(found))
    assert all(first - 12 * MINUTE <= start < last + 12 * MINUTE for start in starts(found))


def test_minutes_in_which_no_symbol_trades_are_a_gap_of_all() -> None:
    """Too short a run for one symbol, but not for five."""
    symbols = ["COMI", "ETEL", "SWDY", "PHDC", "TMGH"]
    hole = {dt.datetime(2025, 5, 7, 8, minute, tzinfo=dt.UTC) for minute in range(5)}
    archived: Archived = {}
    for symbol in symbols:
        filled(archived, symbol, "1 Minute", (start for start in traded(symbol, 0.7) if start not in hole))
    for symbol in symbols:
        assert set(starts(checked(archived, symbol))) == hole


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_a_five_minute_bar_tells_where_minutes_are_missing(seed: int, count: int) -> None:
    day = dt.date(2025, 5, 7)
    minutes = traded("a", 0.6, day, day)
    archived: Archived = {}
    filled(archived, "COMI", "1 Minute", minutes)
    coarser(archived, "COMI", "1 Minute", "5 Minute")
    lost = set(random.Random(seed).sample(minutes, count))
    for start in lost:
        del archived["COMI", "1 Minute"][start]
    found = set(starts(Checker(archived, egx(), day, day, OVER).gaps("COMI", "1 Minute", set())))
    assert lost <= found
    windows = {start - dt.timedelta(minutes=start.minute % 5) for start in lost}
    assert {start - dt.timedelta(minutes=start.minute % 5) for start in found} == windows
    assert not found & archived["COMI", "1 Minute"].keys()


def test_a_daily_bar_tells_that_minutes_are_missing_somewhere() -> None:
    minutes = traded("a", 0.6)
    archived: Archived = {}
    filled(archived, "COMI", "1 Minute", minutes)
    coarser(archived, "COMI", "1 Minute", "Daily")
    assert checked(archived) == []
    lost = minutes[1000]
    del archived["COMI", "1 Minute"][lost]
    (gap,) = checked(archived)
    assert gap.kind == "somewhere"
    assert lost in gap.starts
    day = lost.date()
    absent = set(egx().expected("1 Minute", day, day)) - archived["COMI", "1 Minute"].keys()
    assert set(gap.starts) == absent
    assert checked(archived, quiet=absent) == []


def test_a_daily_bar_that_agrees_clears_a_long_quiet_run() -> None:
    """A halt in trading."""
    halt = [dt.datetime(2025, 5, 7, 8, minute, tzinfo=dt.UTC) for minute in range(59)]
    archived: Archived = {}
    filled(archived, "COMI", "1 Minute", (start for start in traded("a", 0.9) if start not in halt))
    assert set(halt) <= set(starts(checked(archived)))
    coarser(archived, "COMI", "1 Minute", "Daily")
    assert checked(archived) == []


def test_daily_volumes_that_always_hold_more_than_the_minutes_are_no_gap() -> None:
    """Trades off the book count for the day alone."""
    archived: Archived = {}
    filled(archived, "COMI", "1 Minute", traded("a", 0.6))
    coarser(archived, "COMI", "1 Minute", "Daily")
    for start, daily in list(archived["COMI", "Daily"].items()):
        archived["COMI", "Daily"][start] = bar("COMI", "Daily", start, round((daily.volume or 0) * 1.05))
    assert checked(archived) == []


def lost_minutes(archived: Archived, lost: Callable[[dt.time], bool]) -> set[dt.datetime]:
    """Removes COMI's minutes of some times of day (Cairo) from every session."""
    minutes = archived["COMI", "1 Minute"]
    removed = {start for start in minutes if lost(start.astimezone(CAIRO).time())}
    for start in removed:
        del minutes[start]
    return removed


@pytest.mark.parametrize(
    "lost", [lambda at: at >= dt.time(13), lambda at: at < dt.time(10, 20)], ids=["after 13:00", "first 20 minutes"]
)
def test_what_every_session_has_lost_is_not_what_sessions_usually_lack(lost: Callable[[dt.time], bool]) -> None:
    archived: Archived = {}
    filled(archived, "COMI", "1 Minute", traded("a", 0.6))
    coarser(archived, "COMI", "1 Minute", "Daily")
    removed = lost_minutes(archived, lost)
    assert removed <= set(starts(checked(archived)))


def test_a_long_run_is_found_though_the_daily_bars_usually_have_a_little_more_volume() -> None:
    """The Daily bar clears a run only where it agrees; a few percent more hide half an hour of small trades."""
    hole = [dt.datetime(2025, 5, 7, 8, minute, tzinfo=dt.UTC) for minute in range(40)]
    archived: Archived = {}
    minutes = traded("a", 0.6)
    for start in minutes:
        filled(archived, "COMI", "1 Minute", [start], 1 if start in hole else 1_000)
    coarser(archived, "COMI", "1 Minute", "Daily")
    for start, daily in list(archived["COMI", "Daily"].items()):
        archived["COMI", "Daily"][start] = bar("COMI", "Daily", start, round((daily.volume or 0) * 1.03))
    assert checked(archived) == []
    for start in set(hole) & set(minutes):
        del archived["COMI", "1 Minute"][start]
    assert set(hole) <= set(starts(checked(archived)))


def test_one_minute_that_a_coarser_bar_explains_does_not_hide_the_rest_of_the_loss() -> None:
    day = dt.date(2025, 5, 7)
    archived: Archived = {}
    filled(archived, "COMI", "1 Minute", traded("a", 0.6))
    for each in ("Daily", "5 Minute"):
        coarser(archived, "COMI", "1 Minute", each)  # type: ignore[arg-type]
    of_day = [start for start in archived["COMI", "1 Minute"] if start.date() == day]
    lost = {of_day[10], *of_day[60:140]}
    for start in lost:
        del archived["COMI", "1 Minute"][start]
    for start in [start for start in archived["COMI", "5 Minute"] if start.date() == day and start > of_day[30]]:
        del archived["COMI", "5 Minute"][start]
    assert lost <= set(starts(checked(archived)))


def test_a_session_of_which_the_daily_bar_has_volume_is_never_quiet() -> None:
    day = dt.date(2025, 5, 7)
    archived: Archived = {}
    filled(archived, "COMI", "1 Minute", traded("a", 0.6))
    coarser(archived, "COMI", "1 Minute", "Daily")
    for start in [start for start in archived["COMI", "1 Minute"] if start.date() == day]:
        del archived["COMI", "1 Minute"][start]
    possible = set(egx().expected("1 Minute", day, day))
    (gap,) = checked(archived, quiet=possible)
    assert (gap.kind, gap.why, gap.traded, set(gap.starts)) == (
        "session",
        "no bar, but the Daily bar has volume",
        True,
        possible,
    )
    del archived["COMI", "Daily"][min(possible)]
    assert checked(archived, quiet=possible) == []


def test_minutes_tell_of_a_missing_coarser_bar() -> None:
    archived: Archived = {}
    filled(archived, "COMI", "1 Minute", traded("a", 0.6))
    coarser(archived, "COMI", "1 Minute", "5 Minute")
    lost = list(archived["COMI", "5 Minute"])[100]
    del archived["COMI", "5 Minute"][lost]
    (gap,) = checked(archived, interval="5 Minute")
    assert (gap.starts, gap.why) == ((lost,), "1 Minute bars are there")


def test_a_thirty_minute_bar_that_is_always_there_is_missed_at_once() -> None:
    archived: Archived = {}
    half_hours = list(egx().expected("30 Minute", FIRST, LAST))
    filled(archived, "COMI", "30 Minute", (start for number, start in enumerate(half_hours) if number != 100))
    assert starts(checked(archived, interval="30 Minute")) == [half_hours[100]]


def test_after_the_earliest_close_of_a_ramadan_without_known_hours_nothing_is_judged() -> None:
    """Ramadan 2027: the sessions end at 13:30, and the calendar does not know it."""
    first, last = dt.date(2027, 2, 14), dt.date(2027, 3, 4)
    over = dt.datetime(2027, 3, 5, tzinfo=dt.UTC)
    minutes = [start for start in traded("a", 0.9, first, last) if start.astimezone(CAIRO).time() < dt.time(13, 15)]
    archived: Archived = {}
    filled(archived, "COMI", "1 Minute", minutes)
    checker = Checker(archived, egx(), first, last, over)
    assert checker.gaps("COMI", "1 Minute", set()) == []
    hole = [start for start in minutes if start.date() == first and start.astimezone(CAIRO).hour == 11]
    for start in hole:
        del archived["COMI", "1 Minute"][start]
    assert set(hole) <= set(starts(checker.gaps("COMI", "1 Minute", set())))


@pytest.mark.skipif(not DATA, reason="EGX_DATA_DIR names no folder with real minutes")
@pytest.mark.parametrize("symbol", ["COMI", "SWDY", "ETEL"])
def test_real_minutes(symbol: str) -> None:
    """Real sessions: little is suspected where nothing was removed, and what is removed is found, no more than its windows."""
    archived: Archived = {}
    for path in sorted((Path(DATA or "") / "intraday_1m").glob("*.csv.gz")):
        with gzip.open(path, "rt") as file:
            for row in csv.DictReader(file):
                start = dt.datetime.fromisoformat(row["ts_utc"])
                one = bar(row["symbol"], "1 Minute", start, int(float(row["volume"])))
                archived.setdefault((row["symbol"], "1 Minute"), {})[start] = one
    days = sorted({start.astimezone(CAIRO).date() for start in archived[symbol, "1 Minute"]})[1:-1]
    over = dt.datetime.combine(days[-1], dt.time(23), CAIRO)
    checker = Checker(archived, egx(), days[0], days[-1], over)
    whole_sessions = {gap for gap in checker.gaps(symbol, "1 Minute", set()) if gap.kind == "session"}  # SWDY lacks one
    suspected = starts(set(checker.gaps(symbol, "1 Minute", set())) - whole_sessions)
    expected = len(list(egx().expected("1 Minute", days[0], days[-1])))
    assert len(suspected) < 0.002 * expected
    for each in ("5 Minute", "Daily"):
        coarser(archived, symbol, "1 Minute", each)  # type: ignore[arg-type]
    assert set(checker.gaps(symbol, "1 Minute", set())) == whole_sessions
    possible = set(egx().expected("1 Minute", days[0], days[-1]))
    lost = set(random.Random(1).sample(sorted(possible & archived[symbol, "1 Minute"].keys()), 200))
    for start in lost:
        del archived[symbol, "1 Minute"][start]
    found = set(starts(set(checker.gaps(symbol, "1 Minute", set())) - whole_sessions))
    assert lost <= found
    windows = {start - dt.timedelta(minutes=start.minute % 5) for start in lost}
    assert {start - dt.timedelta(minutes=start.minute % 5) for start in found} <= windows


# The archive, and the command


def write(root: Path, bars: Iterable[Bar], ingested: dt.datetime) -> None:
    """As the archive leg writes them."""
    store = Directory(root)
    by_symbol: dict[str, list[bytes]] = {}
    for one in bars:
        fields = json.loads(encode(one)) | {"ingestion_timestamp": ingested.isoformat()}
        by_symbol.setdefault(one.symbol, []).append(json.dumps(fields).encode())
    for symbol, lines in by_symbol.items():
        store.put(f"date={ingested:%Y-%m-%d}/symbol={symbol}/{ingested:%H%M%S%f}-0-{0:018d}.json", b"\n".join(lines) + b"\n")


def test_the_latest_version_counts(tmp_path: Path) -> None:
    start = dt.datetime(2025, 5, 7, 7, tzinfo=dt.UTC)
    write(tmp_path, [bar("COMI", "Daily", start, 2)], start + dt.timedelta(hours=9))
    write(tmp_path, [bar("COMI", "Daily", start, 1, final=False)], start + dt.timedelta(hours=1))
    write(tmp_path, [bar("ETEL", "Daily", start, 3)], start + dt.timedelta(days=100))
    write(tmp_path, [bar("COMI", "Daily", start - dt.timedelta(days=30))], start)
    (tmp_path / ".half.json.tmp").touch()
    read = archive.read(
        Directory(tmp_path), "EGX", ["COMI", "ETEL", "SWDY"], start.date(), start.date(), OVER + dt.timedelta(days=100)
    )
    assert {series: [one.volume for one in bars.values()] for series, bars in read.items()} == {
        ("COMI", "Daily"): [2],
        ("ETEL", "Daily"): [3],
    }


def test_keys_are_listed_in_order_from_a_date_on(tmp_path: Path) -> None:
    store = Directory(tmp_path)
    assert list(store.keys()) == []
    keys = [f"date=2025-05-{day:02}/symbol={symbol}/1.json" for day in (3, 4, 11) for symbol in ("COMI", "ETEL")]
    for key in reversed(keys):
        store.put(key, b"{}")
    assert list(store.keys()) == keys
    assert list(store.keys("date=2025-05-04")) == keys[2:]
    assert list(store.keys(keys[2])) == keys[3:]
    assert store.get(keys[0]) == b"{}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the command on an archive in a folder: its status and what it prints."""
    for name in [name for name in os.environ if name.startswith("EGX_")]:
        monkeypatch.delenv(name)
    (tmp_path / "config.yaml").write_text("source: {symbols: [COMI, ETEL]}")
    monkeypatch.setenv("EGX_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setattr(gaps, "now", lambda: OVER)
    load.cache_clear()

    def run(*arguments: str) -> int:
        try:
            return gaps.main(arguments)
        finally:
            load.cache_clear()

    return run


def test_the_command_says_what_is_missing_and_ends_accordingly(
    folder: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data/archive/streaming"
    days = list(egx().expected("Daily", FIRST, LAST))
    both = [bar(symbol, "Daily", day) for symbol in ("COMI", "ETEL") for day in days]
    write(root, both[:-1], OVER)
    assert folder("--from", FIRST.isoformat()) == 1
    out = capsys.readouterr().out
    assert "1 bars missing, 2025-05-04 to 2025-06-25" in out
    assert "ETEL" in out
    assert folder("--from", FIRST.isoformat(), "--json") == 1
    made = json.loads(capsys.readouterr().out)
    assert made["missing_bars"] == 1
    assert made["gaps"][0] == {
        "symbol": "ETEL",
        "interval": "Daily",
        "kind": "session",
        "why": "no bar",
        "first": days[-1].isoformat(),
        "last": days[-1].isoformat(),
        "bars": 1,
    }
    assert folder("--from", FIRST.isoformat(), "--symbols", "comi") == 0
    assert "Nothing is missing" in capsys.readouterr().out
    write(root, both[-1:], OVER + dt.timedelta(seconds=1))
    assert folder("--from", FIRST.isoformat()) == 0


def test_a_symbol_that_stopped_is_stale(folder: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    days = list(egx().expected("Daily", FIRST, LAST))
    write(tmp_path / "data/archive/streaming", [bar("COMI", "Daily", day) for day in days], OVER)
    write(tmp_path / "data/archive/streaming", [bar("ETEL", "Daily", day) for day in days[:-3]], OVER)
    assert folder("--from", FIRST.isoformat(), "--json") == 1
    assert json.loads(capsys.readouterr().out)["stale"] == {"ETEL": days[-4].isoformat()}


def test_an_archive_that_is_not_there_and_dates_that_do_not_fit(
    folder: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder("--from", FIRST.isoformat(), "--json") == 1
    assert json.loads(capsys.readouterr().out)["stale"] == {"COMI": None, "ETEL": None}
    assert folder("--from", "2025-06-01", "--to", "2025-05-01") == 2
    assert "--from 2025-06-01 is after --to 2025-05-01" in capsys.readouterr().err


def test_sessions_that_are_only_expected_are_said_to_be(folder: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    folder("--from", "2026-12-01", "--to", "2026-12-10")
    assert "8 of the sessions, or their Ramadan hours, are expected, not confirmed" in capsys.readouterr().out

from __future__ import annotations

import datetime as dt
import itertools
import math
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.bar import Bar, Rejected, decode, encode
from dataflows.calendar import egx
from dataflows.settings import SYMBOLS, Settings, Simulated, Source
from dataflows.sources import SourceError
from dataflows.sources.simulated import LIMIT, on_tick, poll, within_limit

DATE = dt.date(2025, 12, 7)
SESSION = egx().session(DATE)
assert SESSION


def played(tmp_path: Path, **options: Any) -> list[list[Bar]]:
    """The batches of a session as fast as it can be played."""
    Settings.file = tmp_path / "config.yaml"
    symbols = options.pop("symbols", SYMBOLS)
    chosen = Simulated(**{"speed": 0, "date": DATE, "history_sessions": 30, **options})
    settings = Settings(source=Source(simulated=chosen, symbols=symbols))
    return [list(batch) for batch in poll(settings)(threading.Event())]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> list[Bar]:
    return list(itertools.chain(*played(tmp_path_factory.mktemp("simulated"))))


def test_the_same_seed_makes_the_same_session_and_another_another(tmp_path: Path, session: list[Bar]) -> None:
    assert list(itertools.chain(*played(tmp_path))) == session
    other = list(itertools.chain(*played(tmp_path, seed=1)))
    for interval in ("Daily", "1 Minute"):
        assert {bar.close for bar in other if bar.interval == interval} != {
            bar.close for bar in session if bar.interval == interval
        }
    histories = [[bar for bar in bars if bar.datetime < SESSION.open] for bars in (session, other)]
    assert histories[0] != histories[1]


def test_a_symbols_bars_do_not_depend_on_the_other_symbols(tmp_path: Path, session: list[Bar]) -> None:
    alone = list(itertools.chain(*played(tmp_path, symbols=("ETEL",))))
    assert alone == [bar for bar in session if bar.symbol == "ETEL"]


def test_every_bar_is_valid_named_simulated_and_keeps_the_exchanges_rules(session: list[Bar]) -> None:
    previous = {bar.symbol: bar.close for bar in session if bar.interval == "Daily" and bar.datetime < SESSION.open}
    assert set(previous) == set(SYMBOLS)
    for bar in session:
        assert not isinstance(decode(encode(bar), dt.datetime.now(dt.UTC)), Rejected)
        assert bar.source == "simulated"
        prices = (bar.open, bar.high, bar.low, bar.close)
        assert bar.high == max(prices)
        assert bar.low == min(prices)
        assert all(price == on_tick(price) for price in prices)
        assert bar.volume > 0
        if bar.datetime >= SESSION.open:
            limits = previous[bar.symbol] * (1 - LIMIT), previous[bar.symbol] * (1 + LIMIT)
            assert all(limits[0] - 1e-9 <= price <= limits[1] + 1e-9 for price in prices)


def test_minutes_are_within_trading_hours_and_some_are_quiet(session: list[Bar]) -> None:
    minutes = [bar for bar in session if bar.interval == "1 Minute"]
    starts = {bar.datetime for bar in minutes}
    trading = (SESSION.close_continuous - SESSION.open) // dt.timedelta(minutes=1)
    assert all(
        SESSION.open <= start < SESSION.close_continuous or SESSION.auction_end <= start < SESSION.close for start in starts
    )
    for symbol in SYMBOLS:
        mine = [bar.datetime for bar in minutes if bar.symbol == symbol]
        assert len(mine) == len(set(mine))
        assert trading * 0.2 < len(mine) < trading
        assert mine == sorted(mine)
    auction = [bar for bar in minutes if bar.datetime == SESSION.auction_end]
    assert {bar.symbol for bar in auction} == set(SYMBOLS)
    assert all(bar.open == bar.high == bar.low == bar.close for bar in auction)


def test_the_final_daily_bar_is_what_the_minutes_make(session: list[Bar]) -> None:
    days: dict[str, list[Bar]] = defaultdict(list)
    for bar in session:
        if bar.interval == "Daily" and bar.datetime == SESSION.open:
            days[bar.symbol].append(bar)
    for symbol, versions in days.items():
        minutes = [bar for bar in session if bar.interval == "1 Minute" and bar.symbol == symbol]
        assert [bar.is_final for bar in versions] == [False] * (len(versions) - 1) + [True]
        last = versions[-1]
        assert (last.open, last.close) == (minutes[0].open, minutes[-1].close)
        assert (last.high, last.low) == (max(bar.high for bar in minutes), min(bar.low for bar in minutes))
        assert last.volume == sum(bar.volume for bar in minutes)
        assert [bar.volume for bar in versions] == sorted(bar.volume for bar in versions)
    assert set(days) == set(SYMBOLS)


def test_a_year_of_daily_bars_comes_first_one_a_session(tmp_path: Path) -> None:
    batches = played(tmp_path, history_sessions=260, symbols=("COMI",), minutes=1)
    history = batches[0]
    sessions = itertools.islice(egx().sessions_back(DATE - dt.timedelta(days=1)), 260)
    assert [bar.datetime for bar in history] == [session.open for session in sessions][::-1]
    for before, after in itertools.pairwise(history):
        assert abs(after.close / before.close - 1) <= LIMIT + 1e-9


def test_fewer_minutes_or_less_history_can_be_asked_for(tmp_path: Path) -> None:
    batches = played(tmp_path, minutes=3, history_sessions=0)
    assert {bar.interval for batch in batches for bar in batch} == {"1 Minute"}
    assert {bar.datetime - SESSION.open for batch in batches for bar in batch} == {dt.timedelta(minutes=m) for m in range(3)}
    more = played(tmp_path, symbols=("COMI",), history_sessions=100_000, minutes=1)
    assert len(more[0]) < 100_000  # all that the calendar knows


def test_a_day_without_a_session_is_taken_for_the_last_before_it(tmp_path: Path) -> None:
    friday = played(tmp_path, date=dt.date(2025, 12, 5), symbols=("COMI",), minutes=30, history_sessions=0)
    assert {bar.datetime.date() for bar in itertools.chain(*friday)} == {dt.date(2025, 12, 4)}


def test_a_day_before_the_calendar_begins_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no session is known on or before 2001-01-01"):
        played(tmp_path, date=dt.date(2001, 1, 1))


def test_at_a_speed_it_waits_as_long_as_the_session_would_and_stops_when_asked(tmp_path: Path) -> None:
    waited: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0)
            return len(waited) >= 10

    Settings.file = tmp_path / "config.yaml"
    settings = Settings(source=Source(simulated=Simulated(speed=120, date=DATE, history_sessions=0)))
    batches = list(poll(settings)(Stop()))
    assert waited == [0.5] * 10
    assert len(batches) == len(SYMBOLS) + 9  # the (empty) histories, and what came before it was asked


@given(st.floats(0.001, 10_000), st.floats(0.001, 10_000))
def test_a_price_held_within_the_limit_can_be_quoted(price: float, previous: float) -> None:
    previous = on_tick(previous)
    held = within_limit(price, previous)
    assert held == on_tick(held)
    assert previous * (1 - LIMIT) - 1e-9 <= held <= previous * (1 + LIMIT) + 1e-9
    if previous * (1 - LIMIT) <= on_tick(price) <= previous * (1 + LIMIT):
        assert math.isclose(held, on_tick(price))

"""What the page reads: right, whole, and in nobody's way."""

from __future__ import annotations

import datetime as dt
import sqlite3
from pathlib import Path

import duckdb
import pytest

from connectors.sqlite import open_table
from dataflows import summary
from dataflows.live import TABLE
from dataflows.symbols import Company
from page import stores

DAY = dt.datetime(2025, 12, 7, 8, tzinfo=dt.UTC)


def write(path: Path, *rows: tuple[str, str, dt.datetime, float | None]) -> None:
    """Writes bars: symbol, interval, start, close."""
    connection = open_table(path, TABLE)
    with connection:
        connection.executemany(
            TABLE.upsert(),
            [
                ("EGX", symbol, interval, start.isoformat(), close, close, close, close, 100, 1, start.isoformat(), "test")
                for symbol, interval, start, close in rows
            ],
        )
    connection.close()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "live.sqlite"
    days = [DAY + dt.timedelta(days=number) for number in range(40)]
    write(path, *[("COMI", "Daily", day, 10.0 + number) for number, day in enumerate(days)], ("ETEL", "Daily", DAY, 5.0))
    write(
        path, ("COMI", "1 Minute", DAY, 1.0), ("SWDY", "1 Minute", DAY, 1.0), ("COMI", "Daily", days[-1] + dt.timedelta(1), None)
    )
    return path


def test_quotes_are_the_last_daily_bar_with_a_price_and_the_change_since_the_one_before(store: Path) -> None:
    comi, etel, _ = stores.quotes(store, "EGX")
    assert (comi.symbol, comi.price, comi.volume, comi.source) == ("COMI", 49.0, 100, "test")
    assert comi.change == pytest.approx(49 / 48 - 1)
    assert comi.closes == tuple(float(price) for price in range(20, 50))
    assert comi.company == Company("Commercial International Bank (Egypt)", "البنك التجاري الدولي (مصر)", "Banks", "EGP")
    assert comi.ingested_at == comi.time == DAY + dt.timedelta(days=39)
    assert (etel.symbol, etel.price, etel.change) == ("ETEL", 5.0, None)


def test_without_daily_bars_a_day_is_rolled_up_from_the_shortest_intraday_bars(tmp_path: Path) -> None:
    path = tmp_path / "live.sqlite"
    prices = ((8.0, -1_440), (10.0, 0), (12.0, 1), (9.0, 2), (11.0, 3), (None, 4))
    minutes = [("COMI", "1 Minute", DAY + dt.timedelta(minutes=at), price) for price, at in prices]
    write(path, *minutes, ("COMI", "5 Minute", DAY, 99.0), ("COMI", "Weekly", DAY, 99.0), ("ETEL", "30 Minute", DAY, 5.0))
    write(path, ("SWDY", "Weekly", DAY, 1.0))
    comi, etel = stores.quotes(path, "EGX")
    assert (comi.open, comi.high, comi.low, comi.price, comi.volume) == (10.0, 12.0, 9.0, 11.0, 400)
    assert (comi.time, comi.ingested_at) == (DAY, DAY + dt.timedelta(minutes=3))
    assert (comi.change, comi.closes, comi.source) == (pytest.approx(11 / 8 - 1), (8.0, 11.0), "test")
    assert (etel.symbol, etel.price, etel.change) == ("ETEL", 5.0, None)


def test_a_quote_has_the_day_s_prices_and_about_the_value_traded(store: Path) -> None:
    comi = stores.quotes(store, "EGX")[0]
    assert (comi.open, comi.high, comi.low, comi.value) == (49.0, 49.0, 49.0, 4_900.0)
    assert comi._replace(volume=None).value is None


def test_a_simulated_session_is_where_its_newest_minute_is_also_when_it_plays_again(store: Path) -> None:
    assert stores.play(store, "EGX") is None, "all bars are of another source"
    connection = open_table(store, TABLE)
    early, late = DAY, DAY + dt.timedelta(minutes=30)
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    rows = [
        (
            "EGX",
            "COMI",
            "1 Minute",
            start.isoformat(),
            1,
            1,
            1,
            1,
            1,
            1,
            (at + dt.timedelta(seconds=came)).isoformat(),
            "simulated",
        )
        for start, came in ((early, 2), (late, 1))
    ]
    with connection:
        connection.executemany(TABLE.upsert(), rows)
    connection.close()
    assert stores.play(store, "EGX") == stores.Play(early, at + dt.timedelta(seconds=2))


def test_quotes_agree_with_the_summary_of_the_terminal(store: Path) -> None:
    theirs = {quote.symbol: (quote.close, quote.change) for quote in summary.quotes(store)}
    assert {quote.symbol: (quote.price, quote.change) for quote in stores.quotes(store, "EGX")} == theirs


def test_bars_are_the_newest_oldest_first_and_only_whole_ones(store: Path) -> None:
    frame = stores.bars(store, "EGX", "COMI", "Daily", 3)
    assert list(frame["close"]) == [47.0, 48.0, 49.0]
    assert str(frame["time"].dt.tz) == "UTC"
    assert stores.bars(store, "EGX", "NONE", "Daily", 3).empty
    assert stores.intervals(store, "EGX", "COMI") == ["Daily", "1 Minute"]


def test_a_reader_sees_the_state_before_an_open_write_and_does_not_hold_it_up(store: Path) -> None:
    writer = open_table(store, TABLE)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute(f"UPDATE {TABLE.name} SET close = 77 WHERE symbol = 'ETEL'")
    assert stores.quotes(store, "EGX")[1].price == 5.0
    writer.commit()
    assert stores.quotes(store, "EGX")[1].price == 77.0
    reader = stores._read_only(store)
    reader.execute("BEGIN")
    reader.execute(f"SELECT * FROM {TABLE.name}").fetchone()
    writer.execute(f"UPDATE {TABLE.name} SET close = 78 WHERE symbol = 'ETEL'")
    writer.commit()
    reader.close()
    writer.close()


def test_a_reader_cannot_write(store: Path) -> None:
    connection = stores._read_only(store)
    with pytest.raises(sqlite3.OperationalError):
        connection.execute(f"DELETE FROM {TABLE.name}")
    connection.close()


def test_gold_is_none_until_it_is_published_and_then_its_rows(tmp_path: Path) -> None:
    folder = tmp_path / "it's gold"
    folder.mkdir()
    assert stores.gold(folder, "vw", "SELECT * FROM view") is None
    duckdb.connect().execute(f"COPY (SELECT 42 AS answer) TO '{folder.as_posix().replace(chr(39), chr(39) * 2)}/vw.parquet'")
    frame = stores.gold(folder, "vw", "SELECT answer FROM view")
    assert frame is not None
    assert list(frame["answer"]) == [42]

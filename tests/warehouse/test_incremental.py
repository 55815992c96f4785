"""Whatever comes in whatever order: the tables that grew run by run equal those of one rebuild from the whole archive."""

import datetime as dt
import json
import os
import random
import tempfile
import typing as t
from pathlib import Path

import pytest
from archives import Bar, bar, daily, deliver, iso, trading_days
from conftest import PROJECT, Warehouse
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlmesh.utils.errors import PlanError

TABLES = (
    "bronze.stock_prices_raw",
    "silver.stock_prices_streamed",
    "silver.stock_prices_cleaned",
    "silver.stock_price_versions",
    "silver.stock_prices_daily",
    "silver.stock_prices_momentum",
    "gold.fct_stock_intraday_prices",
    "gold.fct_stock_daily_prices",
    "gold.dim_stock",
    "gold.vw_gold_data_quality",
)
# What keeps rows from one run to the next; the other models are made anew from these by each run.
KEPT = (
    "bronze.stock_prices_raw",
    "silver.stock_prices_streamed",
    "silver.stock_prices_daily",
    "silver.stock_prices_momentum",
    "gold.fct_stock_daily_prices",
    "gold.fct_stock_intraday_prices",
)
DAYS = trading_days(dt.date(2026, 9, 6), 8)


def at(day: dt.date, hour: int, minute: int = 0) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(hour, minute))


class Deliveries:
    """Random deliveries of many companies into an archive, each company a history of its own.

    New bars, corrections, replays of old versions, bars that contradict themselves and broken lines, under the date of the day or
    an earlier one, and files of history that grow, are corrected, lose a row and are taken away.
    """

    # Runs cost time, companies cost none: so one warehouse tries many histories. The first two change their names.
    COMPANIES = [("OTMT", "OIH"), ("EKHO", "VLMR"), *((f"S{number}", f"S{number}") for number in range(40))]

    def __init__(self, archive: Path, seed: int) -> None:
        self.archive = archive
        self.random = random.Random(seed)
        self.sent: dict[str, list[Bar]] = {symbol: [] for _, symbol in self.COMPANIES}
        self.filed: dict[Path, dict[str, float]] = {}
        self.offset = 0

    def record(self, names: tuple[str, str], now: dt.datetime) -> Bar | str:
        choice, sent = self.random.choice, self.sent[names[1]]
        kind = choice(["daily", "minute", "correct", "replay", "contradicting", "broken", "no price"])
        day = now.date() - dt.timedelta(choice([0, 0, 1, 2, 5]))
        ingested = now + dt.timedelta(seconds=self.random.randrange(3000))
        close = self.random.randrange(900, 1100) / 100
        if kind == "broken":
            return choice(["{broken", "", "[1]"])
        if kind == "no price":
            return daily(names[1], day, 0, ingested)
        if kind == "replay" and sent:
            return choice(sent)
        if kind == "correct" and sent:
            old = choice(sent)
            made = bar(old["symbol"], old["datetime"], close, ingested, old["interval"])
        elif kind == "minute":
            made = bar(choice(names), at(day, 8, self.random.randrange(4)), close, ingested, "1 Minute")
        else:
            made = daily(choice(names), day, close, ingested, **({"high": close - 1} if kind == "contradicting" else {}))
        sent.append(made)
        return made

    def deliver(self, now: dt.datetime, date: dt.date) -> None:
        """Some lines of half the companies, written at one time under one delivery date."""
        for names in self.random.sample(self.COMPANIES, len(self.COMPANIES) // 2):
            records = [self.record(names, now) for _ in range(self.random.randrange(1, 4))]
            deliver(self.archive, records, self.offset, date=str(date))
            self.offset += len(records)

    def file(self, now: dt.datetime) -> None:
        """A company's file of days or minutes: a row more or less, and all of its prices anew; or a file is taken away."""
        if self.filed and self.random.random() < 0.3:
            taken = self.random.choice(list(self.filed))
            taken.unlink()
            del self.filed[taken]
            return
        _, symbol = self.random.choice(self.COMPANIES)
        days = self.random.random() < 0.5
        path = self.archive / "batch" / symbol / (f"{symbol}.csv" if days else f"EGX_{symbol}, 1.csv")
        rows = self.filed.setdefault(path, {})
        start = at(now.date() - dt.timedelta(self.random.randrange(6)), 8, self.random.randrange(4))
        if len(rows) > 1 and self.random.random() < 0.3:
            del rows[self.random.choice(list(rows))]
        else:
            rows[f"{start:%Y-%m-%d}" if days else f"{start:%Y-%m-%dT%H:%M:00+00:00}"] = 0
        lines = ["Date,Open,High,Low,Close,Volume" if days else "time,open,high,low,close,Volume", "not a row"]
        for time in sorted(rows):
            rows[time] = self.random.randrange(900, 1100) / 100
            lines.append(",".join([time, *[str(rows[time])] * 4, "1000"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.utime(path, (now.replace(tzinfo=dt.UTC).timestamp(),) * 2)

    def latest(self) -> dict[tuple[str, str, str], tuple[str, int]]:
        """Object and line of each bar's latest version, from all lines that were ever delivered."""
        versions: dict[tuple[str, str, str], tuple[str, str, int]] = {}
        for path in (self.archive / "streaming").rglob("*.json"):
            delivered = dt.date.fromisoformat(path.parent.parent.name.removeprefix("date="))
            accepted_until = iso(at(delivered + dt.timedelta(2), 0))
            for number, line in enumerate(path.read_text().split("\n"), 1):
                if line.startswith('{"') and (found := json.loads(line))["close"]:
                    start = found["datetime"]
                    if found["ingestion_timestamp"] > accepted_until:  # a replay of what was not known then
                        continue
                    key = (found["symbol"], found["interval"], start[:10] if found["interval"] == "Daily" else start)
                    version = (found["ingestion_timestamp"], path.relative_to(self.archive).as_posix(), number)
                    versions[key] = max(version, versions.get(key, version))
        return {key: version[1:] for key, version in versions.items()}


def known(warehouse: Warehouse) -> dict[tuple[str, str, str], tuple[str, int]]:
    start = "IF(bar_interval = 'Daily', bar_time::DATE::TEXT, STRFTIME(bar_time, '%Y-%m-%dT%H:%M:%S.%fZ'))"
    rows = warehouse.rows(f"SELECT symbol, bar_interval, {start}, archive_object, source_line FROM silver.stock_prices_streamed")
    return {row[:3]: row[3:] for row in rows}


# An example takes half a minute: two of them, 60 under the profile `long`.
EXAMPLES = settings.default.max_examples // 50


@pytest.mark.timeout(600 * EXAMPLES)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_runs_equal_a_rebuild(seed: int) -> None:
    """Each example is a warehouse over 42 companies' histories. After each run it knows the latest version of each bar."""
    from warehouse.run import run as run_all

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        deliveries = Deliveries(root / "archive", seed)
        choose = random.Random(seed + 1)
        deliveries.deliver(at(DAYS[0], 0), DAYS[0])
        grown = Warehouse(root / "archive", root / "grown").open()
        grown.plan(execution_time=at(DAYS[0], 1))
        is_late = False
        for day in DAYS[:6]:
            # before the close and after it, one of them, or no run at all
            for hour in choose.choice([[], [10], [14], [10, 14]]):
                deliveries.deliver(at(day, hour - 1), day)
                # the day before is read again by each run
                deliveries.deliver(at(day, hour - 1, 30), day - dt.timedelta(choose.randrange(2)))
                deliveries.file(at(day, hour - 1))
                if choose.random() < 0.15:  # what is older only by warehouse.run
                    past = day - dt.timedelta(choose.randrange(2, 5))
                    deliveries.deliver(at(past, hour), past)
                    is_late = True
                assert grown.run(at(day, hour), KEPT)
                assert is_late or known(grown) == deliveries.latest()
        end = at(DAYS[5], 15)
        assert run_all(grown.context, end, 30)
        assert known(grown) == deliveries.latest()
        tables = {table: grown.table(table) for table in TABLES}
        grown.close()
        rebuilt = Warehouse(root / "archive", root / "rebuilt").open()
        rebuilt.plan(execution_time=end)
        for table in TABLES:
            assert tables[table] == rebuilt.table(table), table
        current = "SELECT archive_object, source_line FROM {} ORDER BY ALL"
        as_of_now = rebuilt.rows(current.format("silver.stock_price_versions WHERE known_until IS NULL"))
        assert as_of_now == rebuilt.rows(current.format("silver.stock_prices_cleaned"))
        rebuilt.close()


@pytest.mark.timeout(1200)
def test_a_long_history_of_deliveries_equals_a_rebuild(make_warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two weeks with sessions run twice, corrections days later, replays, a renaming, a file, and late objects."""
    from warehouse.run import late_dates
    from warehouse.run import run as run_all

    archive = (grown := make_warehouse()).archive
    grown.plan(execution_time=at(DAYS[0], 1))
    offset = 0

    def put(bars: list[Bar | str], **options: str) -> None:
        nonlocal offset
        deliver(archive, bars, offset, **options)
        offset += len(bars)

    for number, day in enumerate(DAYS):
        put([daily("COMI", day, 80 + number, at(day, 9)), bar("ETEL", at(day, 8, 5), 40 + number, at(day, 8, 6), "1 Minute")])
        if number % 4 == 0:
            assert grown.run(at(day, 10), KEPT)
        put(
            [
                daily("COMI", day, 81 + number, at(day, 13), is_final=True),
                bar("ETEL", at(day, 8, 6), 41 + number, at(day, 8, 7), "1 Minute"),
            ]
        )
        put([daily("OTMT" if number < 4 else "OIH", day, 0.5, at(day, 13, 1)), "{broken"], date=str(day))
        assert grown.run(at(day, 14), KEPT)
    put([daily("COMI", DAYS[1], 99, at(DAYS[7], 15))])  # a correction a week later
    put([daily("COMI", DAYS[2], 1, at(DAYS[2], 1))], date=str(DAYS[7]))  # an old version, replayed
    put([{**bar("ETEL", at(DAYS[3], 8, 5), 44.0, at(DAYS[7], 15, 1), "1 Minute"), "high": 1.0}])  # now contradicts itself
    batch = archive / "batch" / "ABUK"
    batch.mkdir(parents=True)
    (batch / "history.csv").write_text("Date,Open,High,Low,Close,Adj Close,Volume\n2026-09-06,50,51,49,50.5,50.5,1000\n")
    assert grown.run(at(DAYS[7], 16))
    put([daily("SWDY", DAYS[0], 55, at(DAYS[0], 13))], date=str(DAYS[0]))  # its writer was away for a week
    (archive / "streaming" / f"date={DAYS[0]}" / "symbol=SWDY" / "130500000000-0-000000000000000900.json").touch()
    assert late_dates(grown.context, DAYS[7], 30) == [DAYS[0]]
    monkeypatch.setattr(grown.context, "test", lambda **_: pytest.fail("the unit tests of an unchanged project"))
    assert run_all(grown.context, at(DAYS[7], 17), 30)
    assert late_dates(grown.context, DAYS[7], 30) == []  # the object without a line is not loaded again and again

    rebuilt = make_warehouse("rebuilt")
    rebuilt.plan(execution_time=at(DAYS[7], 17))
    grown.open()
    grown_tables = {table: grown.table(table) for table in TABLES}
    rebuilt.open()
    for table in TABLES:
        assert grown_tables[table] == rebuilt.table(table), table
    found = dict(rebuilt.rows("SELECT trade_date, close_price FROM gold.fct_stock_daily_prices WHERE symbol = 'COMI'"))
    assert (found[DAYS[1]], found[DAYS[2]]) == (99, 83)
    assert len(rebuilt.rows("SELECT * FROM gold.fct_stock_daily_prices WHERE symbol = 'OIH'")) == len(DAYS)
    assert len(rebuilt.rows("SELECT * FROM gold.fct_stock_daily_prices WHERE symbol = 'SWDY'")) == 1


def test_runs_without_news_keep_all_rows_and_a_dead_feed_is_seen(make_warehouse) -> None:
    """The catalog's name must be the one that Snowflake's dialect folds to: else each run makes the keyed tables anew."""
    warehouse = make_warehouse()
    deliver(warehouse.archive, [daily("COMI", day, 80) for day in DAYS[:-1]])
    warehouse.plan(execution_time=at(DAYS[-2], 14))
    before = {table: warehouse.table(table) for table in TABLES}
    assert len(before["silver.stock_prices_streamed"]) == len(DAYS) - 1
    for now in (at(DAYS[-2], 15), at(DAYS[-1], 11, 59)):  # half an hour after the next close, less a minute
        warehouse.open()
        assert warehouse.run(now)
        assert before == {table: warehouse.table(table) for table in TABLES}

    late = "SELECT symbol, received FROM gold.vw_gold_data_quality WHERE status = 'warn' AND check_name = '{}' {} ORDER BY symbol"
    of_last = late.format("bars", f"AND trade_date = '{DAYS[-1]}'")
    assert warehouse.rows(of_last) == []
    assert warehouse.run(at(DAYS[-1], 12))
    companies = warehouse.rows("SELECT symbol, 0 FROM gold.dim_stock WHERE listing_status = 'listed' ORDER BY symbol")
    assert warehouse.rows(of_last) == companies  # COMI, and those that have never traded
    assert warehouse.rows(late.format("freshness", "")) == [("COMI", 1)]


def test_an_archive_may_lie_in_a_folder_of_any_name(make_warehouse, tmp_path: Path) -> None:
    archive = tmp_path / "o'brien [a-c]*"
    archive.mkdir()
    deliver(archive, [daily("COMI", day, 80) for day in DAYS[:3]])
    (archive / "streaming" / "date=stray").write_text("no folder")
    warehouse = make_warehouse(archive=archive)
    warehouse.plan(execution_time=at(DAYS[2], 14), select_models=["bronze.stock_prices_raw"])
    assert warehouse.rows("SELECT COUNT(*), COUNT(reject_reason) FROM bronze.stock_prices_raw") == [(3, 0)]


def test_an_archive_that_has_gone_takes_nothing_out_of_bronze(make_warehouse, tmp_path: Path, caplog) -> None:
    from warehouse.run import lost
    from warehouse.run import run as run_all

    warehouse = make_warehouse()
    streaming = warehouse.archive / "streaming"
    bronze = ["bronze.stock_prices_raw"]
    warehouse.plan(execution_time=at(DAYS[0], 1), select_models=bronze)  # an empty archive is none that has gone
    deliver(warehouse.archive, [daily("COMI", day, 80) for day in DAYS[:3]])
    assert warehouse.run(at(DAYS[2], 14), bronze)
    before = warehouse.table(bronze[0])
    assert len(before) == 3
    assert lost(warehouse.context, DAYS[2], 30) is None

    streaming.rename(tmp_path / "away")
    for _ in ("no folder", "a folder without a date"):
        caplog.clear()
        with caplog.at_level("INFO", "sqlmesh"):
            assert not warehouse.run(at(DAYS[2], 15), bronze)
        assert f"The archive {warehouse.archive} has no streaming/date=... folder, and bronze has 3 rows" in caplog.text
        assert warehouse.table(bronze[0]) == before
        streaming.mkdir(exist_ok=True)
    streaming.rmdir()
    (tmp_path / "away").rename(streaming)

    (streaming / f"date={DAYS[1]}").rename(tmp_path / "away")
    assert f"has less than bronze of {DAYS[1]}: mount" in (lost(warehouse.context, DAYS[2], 30) or "")
    assert not run_all(warehouse.context, at(DAYS[2], 16), 30)
    assert warehouse.table(bronze[0]) == before
    (tmp_path / "away").rename(streaming / f"date={DAYS[1]}")
    assert warehouse.run(at(DAYS[2], 17), bronze)
    assert warehouse.table(bronze[0]) == before


def test_an_object_that_was_written_again_and_longer_is_loaded_again(make_warehouse) -> None:
    """As after a crash: its date is older than what a run reads again, and has no object more."""
    from warehouse.run import late_dates, lost
    from warehouse.run import run as run_all

    warehouse = make_warehouse()
    deliver(warehouse.archive, [daily("COMI", day, 80) for day in DAYS[:4]])
    warehouse.plan(execution_time=at(DAYS[3], 14))
    (written,) = (warehouse.archive / "streaming" / f"date={DAYS[0]}").glob("*/*.json")
    whole = written.read_text()
    written.write_text(whole + json.dumps(daily("ETEL", DAYS[0], 40)) + "\n\n")
    assert lost(warehouse.context, DAYS[3], 30) is None
    assert late_dates(warehouse.context, DAYS[3], 30) == [DAYS[0]]
    assert run_all(warehouse.context, at(DAYS[3], 15), 30)
    found = warehouse.rows(f"SELECT symbol, close_price FROM gold.fct_stock_daily_prices WHERE trade_date = '{DAYS[0]}'")
    assert sorted(found) == [("COMI", 80), ("ETEL", 40)]
    assert late_dates(warehouse.context, DAYS[3], 30) == []

    written.write_text(whole)
    assert f"has less than bronze of {DAYS[0]}: mount" in (lost(warehouse.context, DAYS[3], 30) or "")


def test_a_late_load_that_was_cut_short_is_done_again(make_warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLMesh takes bronze for loaded then, and so would the count of objects."""
    from sqlmesh.core.scheduler import Scheduler

    from warehouse.run import late_dates
    from warehouse.run import run as run_all

    warehouse = make_warehouse()
    deliver(warehouse.archive, [daily("COMI", day, 80) for day in DAYS[:4]])
    warehouse.plan(execution_time=at(DAYS[3], 14))
    deliver(warehouse.archive, [daily("ETEL", DAYS[0], 40)], 900)
    evaluate = Scheduler.evaluate

    def stopped(self: Scheduler, snapshot: t.Any, *arguments: t.Any, **options: t.Any) -> t.Any:
        if "STOCK_PRICES_STREAMED" in snapshot.name and warehouse.rows("FROM bronze.stock_prices_raw WHERE symbol = 'ETEL'"):
            raise RuntimeError("stopped")
        return evaluate(self, snapshot, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Scheduler, "evaluate", stopped)
        with pytest.raises(PlanError):
            run_all(warehouse.context, at(DAYS[3], 15), 30)
    assert late_dates(warehouse.context, DAYS[3], 30) == []
    warehouse.open()
    assert run_all(warehouse.context, at(DAYS[3], 16), 30)
    found = "SELECT symbol FROM gold.fct_stock_daily_prices WHERE trade_date = '{}' ORDER BY symbol"
    assert warehouse.rows(found.format(DAYS[0])) == [("COMI",), ("ETEL",)]
    assert not list(warehouse.folder.glob("late.*"))


def test_an_unreachable_archive_stops_the_run_and_is_named(
    make_warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = make_warehouse(archive=tmp_path / "nowhere")
    failed: list[Exception] = []
    monkeypatch.setattr(warehouse.context.console, "log_failed_models", failed.extend)
    with pytest.raises(PlanError):
        warehouse.plan()
    assert any(f"The archive {tmp_path / 'nowhere'} is not there" in str(failure.__cause__) for failure in failed)
    assert not list((tmp_path / "warehouse" / "gold").glob("*.parquet"))


def test_paths_do_not_depend_on_the_folder_one_stands_in(monkeypatch) -> None:
    import sys

    monkeypatch.syspath_prepend(str(PROJECT / "warehouse"))
    monkeypatch.delenv("EGX_WAREHOUSE_ARCHIVE", raising=False)
    sys.modules.pop("locations", None)
    import locations

    for folder in (PROJECT, PROJECT / "warehouse", Path("/")):
        monkeypatch.chdir(folder)
        assert locations.archive() == str(PROJECT / "data" / "archive")

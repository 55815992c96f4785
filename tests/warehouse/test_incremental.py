"""Whatever comes in whatever order: the tables that grew run by run equal those of one rebuild from the whole archive."""

import datetime as dt
import tempfile
from pathlib import Path

import pytest
from archives import Bar, bar, daily, deliver, trading_days
from conftest import PROJECT, Warehouse
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

TABLES = (
    "bronze.stock_prices_raw",
    "silver.stock_prices_streamed",
    "silver.stock_prices_cleaned",
    "silver.stock_price_versions",
    "silver.stock_prices_daily",
    "gold.fct_stock_intraday_prices",
    "gold.fct_stock_daily_prices",
    "gold.dim_stock",
    "gold.vw_gold_data_quality",
)
# What keeps rows from one run to the next; the other models are made anew from these by each run.
KEPT = ("bronze.stock_prices_raw", "silver.stock_prices_streamed", "gold.fct_stock_intraday_prices")
DAYS = trading_days(dt.date(2026, 9, 6), 8)


def at(day: dt.date, hour: int, minute: int = 0) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(hour, minute))


@st.composite
def deliveries(draw: st.DrawFn, old_symbol: str, symbol: str) -> list[list[Bar]]:
    """One company's batches, one a delivery date: new bars, corrections, replays of old versions, contradictions."""
    sent: list[Bar] = []
    batches: list[list[Bar]] = []
    for number, day in enumerate(DAYS[:4]):
        batch: list[Bar] = []
        for minute in range(draw(st.integers(0, 4))):
            kind = draw(st.sampled_from(["daily", "minute", "correct", "replay", "wrong"]))
            ingested = at(day, 9, minute * 7 + number)
            close = draw(st.integers(900, 1100)) / 100
            name = draw(st.sampled_from([symbol, old_symbol]))
            of_day = draw(st.sampled_from(DAYS[: number + 1]))
            if kind == "replay" and sent:
                batch.append(draw(st.sampled_from(sent)))
            elif kind == "correct" and sent:
                old = draw(st.sampled_from(sent))
                batch.append(bar(old["symbol"], old["datetime"], close, ingested, old["interval"]))
            elif kind == "wrong":
                batch.append(daily(name, of_day, close, ingested, high=close - 1))
            elif kind == "minute":
                batch.append(bar(name, at(of_day, 8, draw(st.integers(0, 3))), close, ingested, "1 Minute"))
            else:
                batch.append(daily(name, of_day, close, ingested))
        sent += batch
        batches.append(batch)
    return batches


# Each company is an example of its own, so one warehouse tries many: the runs are what costs.
COMPANIES = [("OTMT", "OIH"), ("EKHO", "VLMR"), *((f"S{number}", f"S{number}") for number in range(10))]


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
@given(companies=st.tuples(*(deliveries(*names) for names in COMPANIES)), mid_session=st.booleans())
def test_runs_equal_a_rebuild(companies: tuple[list[list[Bar]], ...], mid_session: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "archive").mkdir()
        grown = Warehouse(root / "archive", root / "grown").open()
        grown.plan(execution_time=at(DAYS[0], 1))
        offset = 0
        for day, batches in zip(DAYS, zip(*companies, strict=True), strict=False):
            batch = [record for one in batches for record in one]
            half = len(batch) // 2 if mid_session else len(batch)
            for hour, part in ((10, batch[:half]), (14, batch[half:])):
                if part:
                    deliver(root / "archive", part, offset, date=str(day))
                    offset += len(part)
                    assert grown.run(at(day, hour), KEPT)
        end = at(DAYS[3], 15)
        assert grown.run(end)
        tables = {table: grown.table(table) for table in TABLES}
        grown.close()
        rebuilt = Warehouse(root / "archive", root / "rebuilt").open()
        rebuilt.plan(execution_time=end)
        for table in TABLES:
            assert tables[table] == rebuilt.table(table), table
        rebuilt.close()


@pytest.mark.timeout(1200)
def test_a_long_history_of_deliveries_equals_a_rebuild(make_warehouse) -> None:
    """Two weeks with sessions run twice, corrections days later, replays, a renaming, a file, and a late object."""
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
    assert run_all(grown.context, DAYS[7], 30)

    rebuilt = make_warehouse("rebuilt")
    rebuilt.plan()
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


def test_an_unreachable_archive_stops_the_run(make_warehouse, tmp_path: Path) -> None:
    warehouse = make_warehouse(archive=tmp_path / "nowhere")
    with pytest.raises(Exception, match="failed"):
        warehouse.plan()
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

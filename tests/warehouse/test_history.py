"""Files of price history, as the sites export them."""

# ruff: noqa: DTZ001, E501 -- DuckDB gives UTC without zone; SQL and recorded lines stay on one line

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmesh.utils.errors import SQLMeshError

from warehouse.history import changed_files, interval_of, price, read_file, symbol_of, volume

CHANGED = dt.datetime(2026, 9, 1, 12)
INVESTING = '\ufeff"Date","Price","Open","High","Low","Vol.","Change %"\r\n"12/07/2025","83.90","83.10","84.00","82.75","1.25M","0.96%"\r\n'
YAHOO = "Date,Open,High,Low,Close,Adj Close,Volume\n2025-06-08,83.1,84,82.75,83.9,80.1,1250000\n2025-06-09,null,null,null,null,null,null\n"
TRADINGVIEW = "time,open,high,low,close,Volume\n1765094400,83.1,84,82.75,83.9,1250000\n"


def rows(name: str, text: str, order: str = "MDY") -> list[dict]:
    return list(read_file(name, CHANGED, text.encode(), order))


def test_investing_com_gives_a_daily_bar_that_starts_at_ten_in_cairo() -> None:
    (row,) = rows("batch/COMI Historical Data.csv", INVESTING)
    assert (row["symbol"], row["bar_interval"], row["bar_time"]) == ("COMI", "Daily", dt.datetime(2025, 12, 7, 8))
    assert [row[name] for name in ("open", "high", "low", "close", "volume")] == ["83.10", "84.00", "82.75", "83.90", "1250000"]
    assert (row["source"], row["source_line"], row["reject_reason"]) == ("investing", 2, None)


def test_the_order_of_day_and_month_is_a_setting() -> None:
    (row,) = rows("batch/COMI.csv", INVESTING, "DMY")
    assert row["bar_time"] == dt.datetime(2025, 7, 12, 7)  # summer time
    (row,) = rows("batch/COMI.csv", INVESTING.replace("12/07", "12/31"), "DMY")
    assert row["reject_reason"] == "'12/31/2025' is not DD/MM/YYYY"
    with pytest.raises(ValueError, match=r"MDY .* or DMY"):
        changed_files("/nowhere", "YMD", {})


def test_yahoo_gives_prices_as_traded_and_null_for_nothing() -> None:
    first, second = rows("batch/symbol=ETEL/ETEL.CA.csv", YAHOO)
    assert (first["symbol"], first["close"], first["bar_time"]) == ("ETEL", "83.9", dt.datetime(2025, 6, 8, 7))
    assert [second[name] for name in ("open", "close", "volume", "reject_reason")] == [None] * 4


def test_tradingview_gives_the_interval_in_the_name() -> None:
    (row,) = rows("batch/EGX_DLY_COMI, 1D.csv", TRADINGVIEW)
    assert (row["symbol"], row["bar_interval"], row["bar_time"]) == ("COMI", "Daily", dt.datetime(2025, 12, 7, 8))
    (row,) = rows("batch/EGX_COMI, 5_a1b2c.csv", TRADINGVIEW.replace("1765094400", "2025-12-07T10:05:00+02:00"))
    assert (row["bar_interval"], row["bar_time"]) == ("5 Minute", dt.datetime(2025, 12, 7, 8, 5))
    assert interval_of("EGX_COMI, 1_x (1).csv") == "1 Minute"


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("batch/COMI/x.csv", "COMI"), ("batch/symbol=COMI/old/data.csv", "COMI"), ("batch/COMI.csv", "COMI"),
     ("batch/COMI.CA.csv", "COMI"), ("batch/COMI Historical Data (1).csv", "COMI"), ("batch/symbol=COMI/2024/x.csv", "COMI"),
     ("batch/symbol=COMI/YAHOO/COMI.CA.csv", "COMI"), ("batch/COMI/2024.csv", "COMI"), ("batch/2024/EGX_DLY_COMI, 1D.csv", "COMI")],
)  # fmt: skip
def test_the_symbol_is_in_the_path(name: str, symbol: str) -> None:
    assert symbol_of(name) == symbol


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("batch/prices.csv", "no folder is a symbol, nor is the start of the file's name"),
        ("batch/2024/2024.csv", "no folder is a symbol, nor is the start of the file's name"),
        ("batch/YAHOO/COMI.CA.csv", "the folders and the file's name say COMI and YAHOO: leave one symbol"),
        ("batch/symbol=COMI/ETEL.csv", "the folders and the file's name say COMI and ETEL: leave one symbol"),
        ("batch/symbol=comi/x.csv", "'comi' is not a symbol"),
    ],
)
def test_a_path_that_does_not_say_one_symbol_is_rejected(name: str, reason: str) -> None:
    (row,) = rows(name, INVESTING)
    assert (row["reject_reason"], row["symbol"], row["archive_object"]) == (reason, None, name)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("batch/COMI.csv", b"a,b\n1,2\n", "the header is of no known site"),
        ("batch/COMI.csv", b"", "the file is empty"),
        ("batch/COMI.csv", b"\xff\xfe", "the file is not UTF-8"),
        ("batch/COMI.csv", INVESTING.replace("83.90", "x").encode(), "close 'x' is not a price"),
        ("batch/COMI.csv", INVESTING.replace("83.90", "0.00").encode(), "close '0.00' is not a price"),
        ("batch/COMI.csv", INVESTING.replace("83.90", "83,90").encode(), "close '83,90' is not a price"),
        ("batch/COMI.csv", INVESTING.replace("83.90", "1,83,900.5").encode(), "close '1,83,900.5' is not a price"),
        ("batch/COMI.csv", INVESTING.replace("1.25M", "1.25X").encode(), "volume '1.25X' is not a count"),
        ("batch/COMI.csv", INVESTING.replace("1.25M", "1KM").encode(), "volume '1KM' is not a count"),
        ("batch/COMI.csv", INVESTING.replace("1.25M", "1,25M").encode(), "volume '1,25M' is not a count"),
        ("batch/COMI.csv", YAHOO.split("\n")[0].encode() + b"\n2025-06-08,83.1\n", "2 cells under 7 columns"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, content: bytes, reason: str) -> None:
    (row,) = read_file(name, CHANGED, content, "MDY")
    assert (row["reject_reason"], row["archive_object"]) == (reason, name)


@pytest.mark.parametrize("name", ["EGX_COMI, 15.csv", "EGX_COMI, 60_a1b2c.csv", "EGX_COMI, 240 (1).csv"])
def test_tradingview_s_other_intervals_are_not_taken_for_days(name: str) -> None:
    (row,) = rows(f"batch/{name}", TRADINGVIEW)
    assert row["reject_reason"].startswith("the interval in the file's name is none of 1D, 1W")


def yahoo(days: list[dt.date]) -> list[dict]:
    return rows("batch/ETEL.csv", "Date,Open,High,Low,Close,Volume\n" + "".join(f"{day},9,9,9,9,1\n" for day in days))


@pytest.mark.parametrize(("apart", "said"), [(7, "7 days apart"), (30, "30 days apart")])
def test_weekly_and_monthly_bars_are_not_taken_for_days(apart: int, said: str) -> None:
    (row,) = yahoo([dt.date(2025, 1, 5) + dt.timedelta(apart * number) for number in range(4)])
    assert said in row["reject_reason"]
    assert row["reject_reason"].endswith("export daily ones")


def test_days_around_holidays_are_still_days() -> None:
    some = [dt.date(2025, 1, 5), dt.date(2025, 3, 2), dt.date(2025, 3, 3), dt.date(2025, 3, 5)]
    few = [dt.date(2025, 1, 5), dt.date(2025, 3, 2), dt.date(2025, 6, 10)]
    for days in (some, few):
        assert [row["reject_reason"] for row in yahoo(days)] == [None] * len(days)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("2025-06-08", "2125-06-08", "'2125-06-08' is still to come"),
        (",83.9,", ",0.00001,", "close '0.00001' is not a price"),
        (",83.9,", ",1e20,", "close '1e20' is not a price"),
    ],
)
def test_what_the_blocking_audits_would_stop_at_is_rejected_before(before: str, after: str, reason: str) -> None:
    first, second = rows("batch/ETEL.csv", YAHOO.replace(before, after))
    assert (first["reject_reason"], second["reject_reason"]) == (reason, None)


def test_a_file_whose_own_time_is_before_its_bars_is_known_since_its_bars() -> None:
    (row,) = read_file("batch/COMI.csv", dt.datetime(2000, 1, 1), INVESTING.encode(), "MDY")
    assert row["ingested_at"] == row["bar_time"]


def test_a_quote_that_never_ends_is_a_rejected_line_and_keeps_those_before() -> None:
    first, second, broken = rows("batch/ETEL.csv", YAHOO + '"' + "x" * 200_000)
    assert (first["close"], second["close"]) == ("83.9", None)
    assert broken["reject_reason"].startswith("no CSV from here on: field larger than")


@given(st.decimals("0.0001", "99999999.9999", places=4))
def test_a_price_survives_its_thousands_commas(value: Decimal) -> None:
    assert Decimal(price(f"{value:,}", "close") or "") == value


@given(st.integers(1, 10**6 - 1), st.sampled_from([("", 1), ("K", 10**3), ("M", 10**6), ("B", 10**9)]))
def test_volumes_have_suffixes(hundredths: int, suffix: tuple[str, int]) -> None:
    letter, scale = suffix
    if scale > 1:
        assert int(volume(f"{Decimal(hundredths) / 100}{letter}") or "") == hundredths * scale // 100
    assert volume(f"{hundredths:,}") == str(hundredths)
    assert volume("-") is None


def test_what_is_beyond_any_share_is_refused() -> None:
    for convert, text in ((lambda text: price(text, "close"), "100,000,000"), (volume, "10,000B")):
        with pytest.raises(ValueError, match="is not a"):
            convert(text)


def test_files_become_silver_rows_and_a_streamed_bar_wins(make_warehouse) -> None:
    from archives import daily, deliver

    warehouse = make_warehouse()
    deliver(warehouse.archive, [daily("COMI", "2025-12-07", 83.5, volume=1_250_000), daily("OTMT", "2025-12-08", 0.5)])
    files: dict[str, str] = {
        "COMI Historical Data.csv": INVESTING
        + '"12/08/2025","84.10","83.90","84.50","83.00","-","0.2%"\r\n"13/08/2025","1","1","1","1","1","1"\r\n',
        "symbol=OIH/yahoo.csv": YAHOO,
        "notes.csv": "nothing,here\n",
    }
    for name, text in files.items():
        path = warehouse.archive / "batch" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    warehouse.plan()
    cleaned = warehouse.rows(
        "SELECT trade_date::VARCHAR, close_price::VARCHAR, volume, data_source, is_complete FROM silver.stock_prices_cleaned "
        "WHERE symbol = 'COMI' ORDER BY bar_time"
    )
    assert cleaned == [
        ("2025-12-07", "83.5000", 1_250_000, "STREAMING", True),
        ("2025-12-08", "84.1000", None, "HISTORICAL", False),
    ]
    # as of any time: a file's bar is known from the file's time on, and only where no streamed one came before
    versions = "SELECT trade_date::VARCHAR, close_price::VARCHAR FROM silver.stock_price_versions WHERE symbol = 'COMI' AND {} ORDER BY 1"
    assert warehouse.rows(versions.format("known_until IS NULL")) == [row[:2] for row in cleaned]
    assert warehouse.rows(versions.format("known_from <= '2025-12-31'")) == [("2025-12-07", "83.5000")]
    quality = warehouse.rows(
        "SELECT check_name, symbol, detail FROM gold.vw_gold_data_quality WHERE check_name IN "
        "('historical_difference', 'rejected') ORDER BY ALL"
    )
    assert [row[:2] for row in quality] == [("historical_difference", "COMI"), ("rejected", "COMI"), ("rejected", None)]
    assert "streamed close 83.5000" in quality[0][2]
    assert "close 83.9000" in quality[0][2]
    assert "COMI Historical Data.csv:4: '13/08/2025' is not MM/DD/YYYY" in quality[1][2]
    # the company's rows join across its renaming, the file's under the new name, the streamed one under the old
    joined = warehouse.rows(
        "SELECT traded_symbol, data_source FROM gold.fct_stock_daily_prices WHERE symbol = 'OIH' ORDER BY trade_date"
    )
    assert joined == [("OIH", "HISTORICAL"), ("OTMT", "STREAMING")]

    bronze = "bronze.stock_prices_historical"
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert len(warehouse.table(bronze)) == 6
    warehouse.archive.rename(warehouse.folder / "away")
    assert not warehouse.run(later, [bronze])  # nothing is taken out because the archive is away
    (warehouse.folder / "away").rename(warehouse.archive)
    assert len(warehouse.table(bronze)) == 6
    for name in files:
        (warehouse.archive / "batch" / name).unlink()
    assert warehouse.run(later, [bronze])
    assert warehouse.table(bronze) == []


def test_an_empty_batch_takes_all_rows_away_and_none_is_an_error(tmp_path: Path) -> None:
    gone, batches = changed_files(str(tmp_path), "MDY", {})
    assert (gone, list(batches)) == (set(), [])
    known = {"batch/COMI.csv": "read once"}
    with pytest.raises(SQLMeshError, match=r"has no batch/, and bronze has the rows of 1 files from there: mount it"):
        changed_files(str(tmp_path), "MDY", known)
    (tmp_path / "batch").mkdir()
    gone, batches = changed_files(str(tmp_path), "MDY", known)
    assert (gone, list(batches)) == (set(known), [])
    with pytest.raises(SQLMeshError, match=f"The archive {tmp_path}/nowhere is not there: mount it"):
        changed_files(str(tmp_path / "nowhere"), "MDY", {})


def test_only_new_and_changed_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warehouse.history.BATCH", 1)
    batch = tmp_path / "batch"
    batch.mkdir()
    known: dict[str, str] = {}

    def read(order: str = "MDY") -> tuple[set[str], set[str]]:
        gone, batches = changed_files(str(tmp_path), order, known)
        for name in gone:
            del known[name]
        found = list(batches)
        known.update((row["archive_object"], row["file_version"]) for _, rows in found for row in rows)
        assert all({row["archive_object"] for row in rows} == names and len(names) == 1 for names, rows in found)  # by BATCH
        return gone, {name for names, _ in found for name in names}

    for symbol in ("COMI", "ETEL", "SWDY"):
        (batch / f"{symbol}.csv").write_text(YAHOO)
    assert read() == (set(), {"batch/COMI.csv", "batch/ETEL.csv", "batch/SWDY.csv"})
    assert read() == (set(), set())
    (batch / "COMI.csv").write_text(YAHOO.replace("83.9,", "83.8,"))  # as long as before
    (batch / "ETEL.csv").unlink()
    (batch / "PHDC.csv").write_text(YAHOO)
    assert read() == ({"batch/ETEL.csv"}, {"batch/COMI.csv", "batch/PHDC.csv"})
    assert read("DMY") == (set(), {"batch/COMI.csv", "batch/PHDC.csv", "batch/SWDY.csv"})


def test_a_run_keeps_the_rows_of_an_unchanged_file_and_reads_again_one_that_spoke_of_the_future(make_warehouse) -> None:
    warehouse = make_warehouse()
    batch = warehouse.archive / "batch"
    batch.mkdir(parents=True)
    (batch / "COMI.csv").write_text(YAHOO)
    (batch / "ETEL.csv").write_text(YAHOO.replace("2025-06-09", "2999-06-09"))
    bronze = "bronze.stock_prices_historical"
    warehouse.plan()
    before = warehouse.table(bronze)
    assert len(before) == 4
    ((table,),) = warehouse.rows(
        "SELECT sql FROM duckdb_views() WHERE schema_name = 'BRONZE' AND view_name = 'STOCK_PRICES_HISTORICAL'"
    )
    stored = table.split("FROM ")[1].rstrip("; ")
    warehouse.rows(f"UPDATE {stored} SET record = 'as stored'")
    later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
    assert warehouse.run(later, [bronze])
    records = warehouse.rows(f"SELECT archive_object, record = 'as stored' FROM {bronze} ORDER BY ALL")
    assert records == [("batch/COMI.csv", True)] * 2 + [("batch/ETEL.csv", False)] * 2
    warehouse.plan(restate_models=[bronze], start="2020-01-01", end=dt.datetime.now(dt.UTC).date())
    assert warehouse.table(bronze) == before
    # a file that cannot be read stops the run, and so does an archive without batch/: the rows stay
    (batch / "COMI.csv").write_text(YAHOO.splitlines()[0])
    (batch / "ETEL.csv").unlink()
    (batch / "ETEL.csv").symlink_to("/proc/self/mem")
    assert not warehouse.run(later, [bronze])
    assert warehouse.table(bronze) == before
    batch.rename(warehouse.folder / "away")
    assert not warehouse.run(later, [bronze])
    assert warehouse.table(bronze) == before
    # a header alone has no rows, a file that was taken away neither
    (warehouse.folder / "away").rename(batch)
    (batch / "ETEL.csv").unlink()
    assert warehouse.run(later, [bronze])
    assert warehouse.table(bronze) == []

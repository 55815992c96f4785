"""What the models make of an archive with everything in it that an archive can have: one warehouse, many questions."""

# ruff: noqa: DTZ001, E501 -- DuckDB gives UTC without zone; SQL and recorded lines stay on one line

import datetime as dt
import math
import typing as t
from decimal import Decimal

import numpy as np
import pytest
from archives import bar, daily, deliver, trading_days
from conftest import Warehouse
from reference import compare, daily_columns, random_walk

from dataflows import xcai
from dataflows.calendar import egx

DAYS = trading_days(dt.date(2025, 6, 10), 60)  # over the split of OCDI on 2025-08-17
EX_DATE = dt.date(2025, 8, 17)
RATIO = 3.619608
LAST = dt.date(2025, 9, 16)
# HELI's split, 3 for 1, is on the last of them
YEARS = random_walk(trading_days(LAST - dt.timedelta(587), 420), 7)
YEARS.loc[YEARS.index[-1], ["open", "high", "low", "close"]] = (
    (YEARS.iloc[-1][["open", "high", "low", "close"]] / 3).astype(float).round(2)
)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Warehouse]:
    root = tmp_path_factory.mktemp("market")
    archive = root / "archive"
    archive.mkdir()
    deliver(
        archive, [daily("COMI", day, 80 + math.sin(number) * 3, volume=1000 + 10 * number) for number, day in enumerate(DAYS)]
    )
    # traded at a third after the split; the price itself never moves
    deliver(archive, [daily("OCDI", day, 72.39216 if day < EX_DATE else 20, volume=1000) for day in DAYS], 100)
    deliver(archive, [daily("ABUK", day, 10 if number < 50 else 13) for number, day in enumerate(DAYS)], 200)
    deliver(archive, [daily("HRHO", day, 10 if number < 50 else 12) for number, day in enumerate(DAYS)], 300)
    # squares of such prices need more than 64 bits
    deliver(archive, [daily("MFPC", day, 50_000 + number) for number, day in enumerate(DAYS)], 350)
    deliver(archive, [
        daily("HELI", f"{row.trade_date:%Y-%m-%d}", row.close, f"{LAST}T13:00:00Z", open=row.open, high=row.high, low=row.low,
              volume=None if math.isnan(row.volume) else int(row.volume)) for row in YEARS.itertuples()
    ], 1000, date=str(LAST))  # fmt: skip
    minutes = [(7, 0, 50.0, 100), (7, 1, 51.0, 300), (7, 5, 49.0, 100), (11, 25, 52.0, None), (11, 29, 50.5, 500)]
    deliver(archive, [bar("SWDY", f"{LAST}T{hour:02d}:{minute:02d}:00Z", close, f"{LAST}T12:00:0{number}Z", "1 Minute", volume)
                      for number, (hour, minute, close, volume) in enumerate(minutes)], 400)  # fmt: skip
    deliver(archive, [bar("SWDY", f"{LAST}T07:00:00Z", 99, f"{LAST}T12:00:00Z", "5 Minute")], 405)
    deliver(archive, [bar("COMI", f"{LAST}T07:00:00Z", 70, f"{LAST}T12:00:00Z", "1 Minute")], 410)
    deliver(archive, [
        "{not json", '"a string"', "[1]",
        daily("comi", LAST, 1), daily("COMI", "1989-01-01", 1), daily("COMI", "2025-12-07", 1, f"{LAST}T12:00:00Z"),
        daily("COMI", LAST, 0), daily("COMI", LAST, 1, volume=-1), {**daily("COMI", LAST, 1), "close": "N/A"},
        {**daily("COMI", LAST, 1), "datetime": "soon"}, {**daily("COMI", LAST, 1), "exchange": None},
        daily("COMI", DAYS[1], 7, "2099-01-01T00:00:00Z"), daily("ETEL", "2099-01-05", 5),  # delivered before they were made
    ], 500, date=str(LAST))  # fmt: skip
    (archive / "streaming" / f"date={LAST}" / "symbol=COMI" / "120000000000-0-000000000000000600.json").write_bytes(b"\xff\xfe\n")
    naive = {**daily("TMGH", LAST, 55), "datetime": "2025-09-16T00:00:00", "new_field": {"a": 1}}
    del naive["source"], naive["is_final"], naive["volume"], naive["ingestion_timestamp"]
    deliver(archive, [naive, daily("TMGH", DAYS[0], 50, high=40)], 700, date=str(LAST))
    deliver(archive, [daily("COMI", DAYS[1], 99, f"{LAST}T13:30:00Z")], 800)  # a correction
    warehouse = Warehouse(archive, root / "warehouse").open()
    warehouse.plan(execution_time=dt.datetime.combine(LAST, dt.time(18)))
    yield warehouse
    warehouse.close()


def test_a_correction_wins_and_every_version_is_known(market: Warehouse) -> None:
    bars = "FROM silver.stock_prices_cleaned WHERE symbol = 'COMI' AND bar_interval = 'Daily'"
    assert market.rows(f"SELECT close_price, archive_object {bars} AND trade_date = '{DAYS[1]}'") == [
        (99, f"streaming/date={LAST}/symbol=COMI/133000000000-0-000000000000000800.json")
    ]
    as_of = f"""
        SELECT close_price::DOUBLE FROM silver.stock_price_versions
        WHERE symbol = 'COMI' AND trade_date = '{DAYS[1]}' AND known_from <= '{{0}}' AND (known_until > '{{0}}' OR known_until IS NULL)
    """
    assert market.rows(as_of.format(f"{LAST} 13:29:59")) == [(round(80 + math.sin(1) * 3, 4),)]
    assert market.rows(as_of.format(f"{LAST} 13:30:00")) == [(99.0,)]
    assert market.rows(as_of.format(f"{DAYS[0]} 00:00:00")) == []


def test_what_is_no_bar_is_in_quarantine_with_its_place_and_reason(market: Warehouse) -> None:
    found = market.rows("SELECT reject_reason, source_line FROM bronze.stock_prices_quarantine ORDER BY ALL")
    assert sorted(reason for reason, _ in found) == sorted(
        ["not JSON", "not JSON", "no symbol", "no symbol", "symbol not allowed", "before 1990", "over a day ahead",
         "open is not a price", "volume is not a count", "close is not a price", "datetime is not a time", "no exchange",
         "ingested after delivery", "ingested after delivery"]
    )  # fmt: skip
    objects = market.rows(
        "SELECT archive_object, record FROM bronze.stock_prices_quarantine WHERE reject_reason = 'not JSON' ORDER BY 2"
    )
    assert [record for _, record in objects] == ["\\xFF\\xFE\\x0A", "{not json"]
    assert all(market.archive.joinpath(path).is_file() for path, _ in objects)


def test_a_new_field_is_kept_and_a_missing_one_is_null_and_counted(market: Warehouse) -> None:
    ((record, ingested, start, volume),) = market.rows(
        "SELECT r.record, c.ingested_at, c.bar_time, c.volume FROM silver.stock_prices_cleaned AS c INNER JOIN bronze.stock_prices_raw "
        f"AS r USING (archive_object, source_line) WHERE c.symbol = 'TMGH' AND c.trade_date = '{LAST}'"
    )
    assert '"new_field": {"a": 1}' in record
    assert ingested == dt.datetime(2025, 9, 16, 12)  # from the object's name
    assert start == dt.datetime(2025, 9, 16, 7)  # a naive time is Cairo's, and a Daily bar starts at ten
    assert volume is None
    counted = market.rows(
        "SELECT symbol, received, detail FROM gold.vw_gold_data_quality WHERE check_name = 'missing_field' AND symbol = 'TMGH'"
    )
    assert counted == [("TMGH", 1, "bars without volume ingestion_timestamp source is_final ")]


def test_a_bar_that_contradicts_itself_is_kept_and_said(market: Warehouse) -> None:
    assert market.rows(
        "SELECT has_anomaly, anomaly_reason FROM silver.stock_prices_cleaned WHERE symbol = 'TMGH' AND has_anomaly"
    ) == [(True, "high below low; open outside the range; close outside the range; ")]
    assert market.rows(f"SELECT * FROM gold.fct_stock_daily_prices WHERE symbol = 'TMGH' AND trade_date = '{DAYS[0]}'") == []
    assert len(market.rows("SELECT * FROM gold.vw_gold_data_quality WHERE symbol = 'TMGH' AND check_name = 'anomaly'")) == 1


def test_a_day_without_a_daily_bar_is_rolled_up_from_one_interval(market: Warehouse) -> None:
    columns = "open_price, high_price, low_price, close_price, volume, built_from, is_rolled_up, bar_count"
    assert market.rows(f"SELECT {columns} FROM gold.fct_stock_daily_prices WHERE symbol = 'SWDY'") == [
        (Decimal(50), Decimal(52), Decimal(49), Decimal("50.5"), 1000, "1 Minute", True, 5)
    ]
    ((close, built_from),) = market.rows(
        f"SELECT close_price::DOUBLE, built_from FROM gold.fct_stock_daily_prices WHERE symbol = 'COMI' AND trade_date = '{DAYS[-1]}'"
    )
    assert (close, built_from) == (round(80 + math.sin(59) * 3, 4), "Daily")


def test_vwap_runs_through_the_session(market: Warehouse) -> None:
    found = market.rows(
        "SELECT session_volume, session_vwap::DOUBLE, bar_time_cairo FROM gold.fct_stock_intraday_prices "
        "WHERE symbol = 'SWDY' AND bar_interval = '1 Minute' ORDER BY bar_time"
    )
    assert [row[:2] for row in found] == [(100, 50.0), (400, 50.75), (500, 50.4), (500, 50.4), (1000, 50.45)]
    assert found[0][2] == dt.datetime(2025, 9, 16, 10)


def test_a_split_is_bridged_and_prices_stay_as_traded(market: Warehouse) -> None:
    rows = market.rows(
        "SELECT trade_date, close_price::DOUBLE, adj_close::DOUBLE, price_change_pct::DOUBLE, ma_7d::DOUBLE, has_unexplained_jump, "
        "adj_volume FROM gold.fct_stock_daily_prices WHERE symbol = 'OCDI' ORDER BY trade_date"
    )
    before, after = [row for row in rows if row[0] < EX_DATE], [row for row in rows if row[0] >= EX_DATE]
    assert {row[1] for row in before} == {72.3922}
    assert {row[1] for row in after} == {20.0}
    assert {round(row[2], 3) for row in rows} == {20.0}
    assert all(abs(row[3]) < 0.001 for row in rows[1:])
    assert not any(row[5] for row in rows)
    # an average is stated on the basis of its own day: it compares with the price beside it
    assert {round(row[4], 3) for row in before[6:]} == {72.392}
    assert {round(row[4], 3) for row in after} == {20.0}
    assert before[0][6] == round(1000 * RATIO)
    assert after[0][6] == 1000


def test_a_jump_beyond_the_limit_is_flagged_one_at_the_limit_is_not(market: Warehouse) -> None:
    jumps = "SELECT symbol, trade_date FROM gold.fct_stock_daily_prices WHERE {} ORDER BY ALL"
    assert market.rows(jumps.format("has_unexplained_jump AND symbol IN ('ABUK', 'HRHO', 'OCDI')")) == [("ABUK", DAYS[50])]
    assert market.rows(jumps.format("is_limit_up AND symbol IN ('ABUK', 'HRHO')")) == [("ABUK", DAYS[50]), ("HRHO", DAYS[50])]
    ((limit,),) = market.rows(
        f"SELECT limit_up_price FROM gold.fct_stock_daily_prices WHERE symbol = 'HRHO' AND trade_date = '{DAYS[50]}'"
    )
    assert limit == 12


def test_the_first_days_have_no_averages(market: Warehouse) -> None:
    rows = market.rows(
        "SELECT ma_7d IS NULL, ma_30d IS NULL, rsi_14 IS NULL, macd_signal IS NULL, trend_signal IS NULL, high_52w IS NULL, ma_200d IS NULL "
        "FROM gold.fct_stock_daily_prices WHERE symbol = 'COMI' ORDER BY trade_date"
    )
    firsts = [next((number for number, row in enumerate(rows) if not row[column]), None) for column in range(7)]
    assert firsts == [6, 29, 14, 33, 29, None, None]


def test_moving_windows_equal_plain_loops(market: Warehouse) -> None:
    rows = market.rows(
        "SELECT close_price::DOUBLE, volume, ma_7d::DOUBLE, ma_30d::DOUBLE, bollinger_upper::DOUBLE, volume_ma_7d::DOUBLE, obv, trend_signal "
        "FROM gold.fct_stock_daily_prices WHERE symbol = 'COMI' ORDER BY trade_date"
    )
    closes, volumes = [row[0] for row in rows], [row[1] for row in rows]
    obv = 0
    for number, (close, _, ma_7, ma_30, upper, volume_ma, found_obv, trend) in enumerate(rows):
        if number:  # in shares of today: the bonus issue of December 2025 gave 11 for 10
            obv += volumes[number] * 11 // 10 * ((close > closes[number - 1]) - (close < closes[number - 1]))
        assert found_obv == obv
        if number >= 29:
            mean_7, mean_30 = sum(closes[number - 6 : number + 1]) / 7, sum(closes[number - 29 : number + 1]) / 30
            last_20 = closes[number - 19 : number + 1]
            mean_20 = sum(last_20) / 20
            deviation = math.sqrt(sum((value - mean_20) ** 2 for value in last_20) / 20)
            assert (ma_7, ma_30, upper) == pytest.approx((mean_7, mean_30, mean_20 + 2 * deviation), abs=6e-5)
            assert volume_ma == pytest.approx(sum(volumes[number - 6 : number + 1]) / 7, abs=6e-5)
            expected = "BULLISH" if close > mean_7 > mean_30 else "BEARISH" if close < mean_7 < mean_30 else "NEUTRAL"
            assert trend == expected


def test_every_column_of_two_years_equals_pandas_and_ta_lib(market: Warehouse) -> None:
    """Over a split on the last day, and on it; with the means of 200 days and the extremes of 52 weeks."""
    found = market.context.engine_adapter.fetchdf(
        "SELECT * FROM gold.fct_stock_daily_prices WHERE symbol = 'HELI' ORDER BY trade_date"
    )
    found.columns = [column.lower() for column in found.columns]
    assert YEARS["trade_date"].iloc[-1].date() == LAST
    factor = np.full(len(YEARS), round(1 / 3, 12))
    factor[-1] = 1
    compare(found, daily_columns(YEARS, factor))
    assert found[["ma_200d", "high_52w", "low_52w"]].notna().sum().tolist() == [221, 161, 161]


def test_companies_have_names_and_histories(market: Warehouse) -> None:
    assert market.rows("SELECT COUNT(*) FROM gold.dim_stock") == [(18,)]  # the 16, and two that only traded
    columns = "symbol, former_symbols, company_name, currency, listing_status, trading_days"
    assert market.rows(
        f"SELECT {columns} FROM gold.dim_stock WHERE symbol IN ('OIH', 'ABUK', 'ESRS', 'VLMR') ORDER BY symbol"
    ) == [
        ("ABUK", None, "ABUK", None, "unknown", 60),
        ("ESRS", None, "Ezz Steel", "EGP", "delisted", 0),
        ("OIH", "OTMT", "Orascom Investment Holding", "EGP", "listed", 0),
        ("VLMR", "EKHO", "Valmore Holding", "USD", "listed", 0),
    ]
    assert market.rows("SELECT index_membership, current_index, company_name_ar FROM gold.dim_stock WHERE symbol = 'SWDY'") == [
        ("EGX30 to 2025-02-01; EGX70 from 2025-08-01", "EGX70", "السويدي اليكتريك")
    ]


def test_the_calendar_says_why_and_when(market: Warehouse) -> None:
    columns = "is_trading_day, reason, session_kind, session_open, session_close, session_minutes"
    assert market.rows(
        f"SELECT {columns} FROM gold.dim_date WHERE date_day IN ('2025-03-10', '2025-06-05', '2025-06-06', '2025-12-07', '2023-04-27') ORDER BY date_day"
    ) == [
        (True, "Named a holiday by the `holidays` library (EG), but the exchange traded", "regular",
         dt.datetime(2023, 4, 27, 8), dt.datetime(2023, 4, 27, 12, 30), 270),
        (True, None, "ramadan", dt.datetime(2025, 3, 10, 8), dt.datetime(2025, 3, 10, 11, 30), 200),
        (False, "Day of Arafah", None, None, None, None),
        (False, "Weekend", None, None, None, None),
        (True, None, "regular", dt.datetime(2025, 12, 7, 8), dt.datetime(2025, 12, 7, 12, 30), 260),
    ]  # fmt: skip


def test_every_day_of_the_calendar_is_the_streams(market: Warehouse) -> None:
    """Trading or not, why not, and all four times, from years before the first hours on record to the last closure expected."""
    calendar, closures = egx(), xcai.closures()
    rows = market.rows(
        "SELECT date_day, is_trading_day, is_known, reason, session_open, session_close_continuous, session_auction_end, session_close "
        "FROM gold.dim_date WHERE date_day BETWEEN '2002-01-01' AND '2030-12-31' ORDER BY date_day"
    )
    assert len(rows) == (xcai.LAST - dt.date(2002, 1, 1)).days + 1
    different = []
    for day, trades, known, reason, *times in rows:
        session = calendar.session(day)
        closed = "Weekend" if day.weekday() in (4, 5) else closures[day].reason if day in closures else None
        expected = (
            True if session else False if closed else None,  # NULL: no hours on record, so no session, and nobody says closed
            calendar.known(day),
            [time.replace(tzinfo=None) for time in session[1:]] if session else [None] * 4,
        )
        if (trades, known, times) != expected or (not trades and reason != closed):
            different.append((day, trades, known, reason, times, expected, closed))
    assert different == []
    assert len([row for row in rows if row[1] and not row[2]]) > 2_500  # both what was observed and what is expected
    assert len([row for row in rows if row[1] is None]) > 3_000


def test_a_missing_day_is_a_warning_a_holiday_is_not(market: Warehouse) -> None:
    missing = market.rows(
        "SELECT trade_date FROM gold.vw_gold_data_quality WHERE check_name = 'bars' AND symbol = 'COMI' AND detail = 'Daily' "
        "AND status = 'warn' ORDER BY ALL"
    )
    closure = dt.date(2025, 9, 4)
    expected = [day for day in trading_days(DAYS[-1], 100) if DAYS[-1] < day <= LAST and day != closure]
    assert DAYS[-1] < closure < LAST
    assert [day for (day,) in missing] == expected
    stale = dict(market.rows("SELECT symbol, received FROM gold.vw_gold_data_quality WHERE check_name = 'freshness'"))
    assert stale["HRHO"] == len(expected)
    assert stale["SWDY"] == 0
    assert market.rows("SELECT expected, received, status FROM gold.vw_gold_data_quality WHERE check_name = 'bars' AND symbol = 'SWDY' "
                       f"AND trade_date = '{LAST}' ORDER BY expected") == [
        (1, 0, "warn"), (52, 1, "warn"), (260, 5, "warn")]  # fmt: skip


def test_the_market_views_agree_with_the_facts(market: Warehouse) -> None:
    snapshot = market.rows("SELECT symbol, trade_date, current_price FROM gold.vw_gold_market_snapshot ORDER BY symbol")
    latest = market.rows(
        "SELECT symbol, MAX(trade_date), MAX_BY(close_price, trade_date) FROM gold.fct_stock_daily_prices GROUP BY 1 ORDER BY 1"
    )
    assert snapshot == latest
    assert len(snapshot) == 8
    assert market.rows("SELECT symbol FROM gold.vw_gold_volume_leaders ORDER BY ALL") == [
        ("COMI",),
        ("SWDY",),
    ]  # not HELI, whose volume is not known
    breadth = market.rows(
        f"SELECT companies, advancers, decliners, unchanged FROM gold.vw_gold_market_breadth WHERE trade_date = '{DAYS[50]}'"
    )
    (companies, advancers, decliners, unchanged) = breadth[0]
    assert companies == 6 == advancers + decliners + unchanged
    assert advancers >= 2

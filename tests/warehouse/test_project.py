"""The project itself: format, lint, unit tests, environments, and what readers see."""

# ruff: noqa: E501 -- SQL stays on one line

import datetime as dt
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from archives import bar, daily, deliver, trading_days
from conftest import PROJECT, Warehouse
from sqlmesh.core.dialect import parse
from sqlmesh.core.model import SqlModel, load_sql_based_model
from sqlmesh.utils.errors import LinterError, PlanError

from warehouse.linter.json_paths import NoJsonPath

SQLMESH = [str(Path(sys.executable).parent / "sqlmesh"), "-p", "warehouse"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "archive").mkdir()
    return {**os.environ, "EGX_WAREHOUSE_ARCHIVE": str(tmp_path / "archive"), "EGX_WAREHOUSE": str(tmp_path / "warehouse")}


def sqlmesh(environment: dict[str, str], *arguments: str, folder: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SQLMESH, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def extra_model(column: str) -> SqlModel:
    """A model of the project's that selects this of a JSON record."""
    text = "MODEL (name silver.extra, kind VIEW, dialect snowflake, audits (not_null(columns := (symbol))));\n"
    model = load_sql_based_model(
        parse(f"{text}SELECT {column} AS symbol FROM (SELECT PARSE_JSON('{{}}') AS record) AS r", default_dialect="snowflake"),
        default_catalog="EGX_DW", dialect="snowflake", project="egx", path=PROJECT / "warehouse" / "models" / "silver" / "extra.sql",
    )  # fmt: skip
    assert isinstance(model, SqlModel)
    return model


def test_format_lint_and_unit_tests_are_content(make_warehouse) -> None:
    context = make_warehouse().context
    assert context.format(check=True)
    assert context.lint_models() == []
    results = context.test()
    assert results.wasSuccessful()
    assert results.testsRun >= 19
    context.upsert_model(extra_model("r.record:symbol"))
    with pytest.raises(LinterError):
        context.lint_models()


@pytest.mark.parametrize(
    ("column", "is_found"),
    [
        ("JSON_EXTRACT_PATH_TEXT(r.record, 'symbol')::TEXT", False),
        ("r.record:symbol::TEXT", True),
        ("(r.record:symbol)::TEXT", True),
        ("r.record['symbol']::TEXT", True),
        ("TRY_CAST(r.record:symbol AS VARCHAR)", True),
        ("TO_VARCHAR(r.record:symbol)", True),
        ("GET(r.record, 'symbol')::TEXT", True),
        ("GET_PATH(r.record, 'symbol')::TEXT", True),
        ("r.record:symbol || ''", True),
        ("UPPER(r.record:symbol)", True),
    ],
)
def test_the_rule_against_json_paths_finds_them(column: str, is_found: bool) -> None:
    """`record:symbol` as text yields the quotes too on DuckDB, so a model that says so does not pass the lint."""
    assert (NoJsonPath(None).check_model(extra_model(column)) is not None) == is_found


def test_a_plan_from_either_folder_publishes_gold_and_the_snapshot(environment: dict[str, str], tmp_path: Path) -> None:
    """An archive with one day of minutes, as the simulated session makes it, plus some Daily bars; no other setting."""
    today = dt.datetime.now(dt.UTC).replace(hour=8, minute=0, second=0, microsecond=0, tzinfo=None)
    archive = tmp_path / "archive"
    for number, symbol in enumerate(("COMI", "OTMT")):
        bars = [bar(symbol, today + dt.timedelta(minutes=minute), 10 + minute % 7 + number, today + dt.timedelta(minutes=minute + 1),
                    "1 Minute") for minute in range(40)]  # fmt: skip
        deliver(archive, bars, number * 100, date=f"{today:%Y-%m-%d}")
    days = [day for day in trading_days(today.date() - dt.timedelta(60), 40) if day < today.date()]
    deliver(archive, [daily("COMI", day, 12) for day in days], 1000, date=f"{today:%Y-%m-%d}")

    ran = sqlmesh(environment, "plan", "--auto-apply", "--no-prompts")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    shown = subprocess.run([sys.executable, "-m", "warehouse.snapshot"], cwd=PROJECT, env={**environment, "COLUMNS": "200"},
                           capture_output=True, text=True, timeout=60)  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "Commercial International Bank" in shown.stdout
    assert "Orascom Investment Holding" in shown.stdout
    assert (f"{today:%Y-%m-%d}*" in shown.stdout and "NEUTRAL" in shown.stdout) or "BULLISH" in shown.stdout

    published = sorted(path.stem for path in (tmp_path / "warehouse" / "gold").glob("*.parquet"))
    assert published == ["dim_date", "dim_stock", "fct_stock_daily_prices", "fct_stock_intraday_prices",
                         "vw_gold_data_quality", "vw_gold_market_breadth", "vw_gold_market_snapshot", "vw_gold_price_history",
                         "vw_gold_top_movers", "vw_gold_volume_leaders"]  # fmt: skip
    prices = duckdb.sql(f"SELECT * FROM '{tmp_path}/warehouse/gold/fct_stock_daily_prices.parquet'")
    assert prices.columns[:2] == ["symbol", "trade_date"]
    # a reader holds its file open while the next plan, from the other folder, adds a bar and publishes anew
    snapshot = str(tmp_path / "warehouse" / "gold" / "vw_gold_market_snapshot.parquet")
    reader = duckdb.connect()
    before = reader.execute("SELECT symbol, current_price FROM READ_PARQUET(?) ORDER BY symbol", [snapshot])
    deliver(archive, [bar("OTMT", today + dt.timedelta(minutes=50), 99, today + dt.timedelta(minutes=51), "1 Minute")], 5000,
            date=f"{today:%Y-%m-%d}")  # fmt: skip
    ran = subprocess.run([SQLMESH[0], "run", "--ignore-cron"], cwd=PROJECT / "warehouse", env=environment, capture_output=True,
                         text=True, timeout=240)  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [symbol for symbol, _ in before.fetchall()] == ["COMI", "OIH"]
    after = dict(reader.execute("SELECT symbol, current_price FROM READ_PARQUET(?)", [snapshot]).fetchall())
    assert after["OIH"] == 99


def test_nothing_published_says_what_to_run(environment: dict[str, str]) -> None:
    ran = subprocess.run([sys.executable, "-m", "warehouse.snapshot"], cwd=PROJECT, env=environment, capture_output=True,
                         text=True, timeout=60)  # fmt: skip
    assert ran.returncode == 1
    assert "sqlmesh -p warehouse plan" in ran.stderr


def physical(warehouse: Warehouse, model: str) -> str:
    """The table in which a model's rows are."""
    ((name,),) = warehouse.rows(
        "SELECT 'EGX_DW.' || table_schema || '.' || table_name FROM information_schema.tables "
        f"WHERE table_name SIMILAR TO '{model.replace('.', '__').upper()}__[0-9]+' AND table_type = 'BASE TABLE'"
    )
    return name


def test_a_blocking_audit_that_fails_keeps_gold_and_what_is_published_as_they_were(make_warehouse) -> None:
    """The facts that block cannot be broken by an archive, so the tables are broken by hand."""
    warehouse = make_warehouse()
    deliver(
        warehouse.archive,
        [daily("COMI", "2026-09-06", 80), bar("COMI", "2026-09-06T08:00:00Z", 80, "2026-09-06T08:01:00Z", "1 Minute")],
    )
    warehouse.plan()
    execute = warehouse.context.engine_adapter.execute

    def published() -> dict[str, tuple[int, bytes]]:
        files = (warehouse.folder / "gold").glob("*.parquet")
        return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}

    gold, files = warehouse.table("gold.fct_stock_daily_prices"), published()
    assert len(gold) == 1
    assert len(files) == 10
    streamed = physical(warehouse, "silver.stock_prices_streamed")
    execute(f"UPDATE {streamed} SET close_price = -1 WHERE bar_interval = 'Daily'")
    assert not warehouse.run()
    assert warehouse.table("gold.fct_stock_daily_prices") == gold
    assert published() == files
    with pytest.raises(PlanError):
        warehouse.plan(restate_models=["silver.stock_prices_cleaned"])
    assert published() == files

    execute(f"UPDATE {streamed} SET close_price = 80, volume = 77, delivered_on = CURRENT_DATE WHERE bar_interval = 'Daily'")
    assert warehouse.run()
    assert warehouse.rows("SELECT volume FROM gold.fct_stock_daily_prices") == [(77,)]
    assert published().keys() == files.keys()
    assert all(published()[name][0] > files[name][0] for name in files)
    # gold's own facts block too: one row a key, prices over 0, no bar of the future; and silver's: none that is made after its delivery
    for model, wrong in (
        ("gold.fct_stock_daily_prices", ""),  # each row twice
        ("gold.fct_stock_daily_prices", "symbol = NULL"),
        ("gold.fct_stock_daily_prices", "close_price = NULL"),
        ("silver.stock_prices_streamed", ""),
        ("silver.stock_prices_momentum", "obv = NULL"),
        ("gold.fct_stock_daily_prices", "low_price = 0"),
        ("gold.fct_stock_daily_prices", "trade_date = '2026-09-09'"),
        ("gold.fct_stock_intraday_prices", "low_price = 0"),
        ("gold.fct_stock_intraday_prices", "bar_time = '2026-09-08'"),
        ("silver.stock_prices_streamed", "bar_time = '2099-01-05', ingested_at = '2099-01-05'"),
        ("silver.stock_prices_streamed", "ingested_at = '2099-01-05'"),
    ):
        table = physical(warehouse, model)
        execute("BEGIN")
        assert warehouse.context.audit(start="2026-09-01", end="2026-09-30", models=iter([model]))
        execute(f"UPDATE {table} SET {wrong}" if wrong else f"INSERT INTO {table} FROM {table}")
        assert not warehouse.context.audit(start="2026-09-01", end="2026-09-30", models=iter([model])), (model, wrong)
        execute("ROLLBACK")


def test_dev_shows_a_change_before_prod_has_it(make_warehouse, tmp_path: Path) -> None:
    """A real change to a model, planned in dev, compared, then promoted."""
    copy = tmp_path / "project"
    shutil.copytree(PROJECT / "warehouse", copy / "warehouse", ignore=shutil.ignore_patterns(".cache", "__pycache__"))
    warehouse = make_warehouse()
    deliver(
        warehouse.archive, [daily("COMI", day, 80 + number) for number, day in enumerate(trading_days(dt.date(2026, 9, 6), 8))]
    )
    warehouse.close()

    from sqlmesh import Context

    def context() -> Context:
        return Context(paths=str(copy / "warehouse"))

    plan = {"auto_apply": True, "no_prompts": True, "skip_tests": True}
    first = context()
    first.plan(**plan)
    first.close()
    model = copy / "warehouse" / "models" / "gold" / "fct_stock_daily_prices.sql"
    model.write_text(model.read_text().replace("volume > 1.5 * ROUND(", "volume > 0.9 * ROUND("))
    second = context()
    staged = warehouse.folder / "gold.staging" / "dim_stock.parquet"
    staged.touch()  # as if a run of prod were under way
    second.plan("dev", **plan, include_unmodified=True)
    (publication,) = second.config.notification_targets
    publication.notify_run_start(environment="dev")
    publication.notify_run_end(environment="dev")
    assert staged.exists()
    signal = "SELECT volume_signal, COUNT(*) FROM gold{}.fct_stock_daily_prices GROUP BY 1 ORDER BY 1 NULLS LAST"
    assert second.engine_adapter.fetchall(signal.format("")) == [("NORMAL", 2), (None, 6)]
    assert second.engine_adapter.fetchall(signal.format("__dev")) == [("HIGH", 2), (None, 6)]
    (difference,) = second.table_diff(
        "prod", "dev", on=["symbol", "trade_date"], select_models={"gold.fct_stock_daily_prices"}, show=False
    )
    rows = difference.row_diff()
    assert (rows.full_match_count, rows.partial_match_count, rows.s_only_count, rows.t_only_count) == (6, 2, 0, 0)
    second.plan(**plan)
    assert second.engine_adapter.fetchall(signal.format("")) == [("HIGH", 2), (None, 6)]
    second.close()


def test_a_version_that_is_there_twice_blocks(make_warehouse) -> None:
    """The view cannot give one twice, so what it reads is broken by hand."""
    warehouse = make_warehouse()
    deliver(warehouse.archive, [daily("COMI", "2026-09-06", 80)])
    warehouse.plan()
    options = {"start": "2026-09-01", "end": "2026-09-07", "execution_time": "2026-09-07"}
    model = ["silver.stock_price_versions"]
    table = physical(warehouse, "silver.stock_prices_history")
    for count in (1, 2):
        warehouse.context.engine_adapter.execute(
            f"INSERT INTO {table} (symbol, exchange, bar_interval, bar_time, ingested_at)"
            " VALUES ('ETEL', 'EGX', 'Daily', '2026-09-06 07:00', '2026-09-06 12:00')"
        )
        assert warehouse.context.audit(models=iter(model), **options) == (count == 1)

"""The same models through the real connector and TLS on a fakesnow server: gold equals gold on DuckDB, row for row."""

import contextlib
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import time
import typing as t
from numbers import Number
from pathlib import Path

import pytest
from archives import bar, daily, deliver, trading_days
from conftest import PROJECT, Warehouse

pytestmark = pytest.mark.servers

HERE = Path(__file__).parent
SETUP = [sys.executable, str(PROJECT / "deploy" / "snowflake" / "setup.py"), "--archive-url", "s3://egx-archive/egx"]
SETUP += ["--aws-role-arn", "arn:aws:iam::123456789012:role/egx-archive", "--user", "SQLMESH"]
GOLD = (
    "silver.stock_prices_cleaned",
    "silver.stock_price_versions",
    "silver.stock_prices_daily",
    "bronze.stock_prices_quarantine",
    "gold.dim_date",
    "gold.dim_stock",
    "gold.fct_stock_daily_prices",
    "gold.fct_stock_intraday_prices",
    "gold.fct_stock_momentum",
    "gold.vw_gold_data_quality",
    "gold.vw_gold_market_breadth",
    "gold.vw_gold_market_snapshot",
    "gold.vw_gold_price_history",
    "gold.vw_gold_top_movers",
    "gold.vw_gold_volume_leaders",
)


@pytest.fixture(scope="module")
def snowflake(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[dict[str, str]]:
    """A fakesnow server behind TLS with an authority of its own; gives the SNOWFLAKE_* variables that reach it."""
    made = subprocess.run(
        [str(HERE / "fakesnow_venv.sh")], env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True
    )
    if made.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"fakesnow's environment could not be made: {made.stderr}")
        pytest.skip(f"fakesnow's environment could not be made: {made.stderr}")
    folder = tmp_path_factory.mktemp("fakesnow")
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([made.stdout.strip(), str(HERE / "fakesnow_server.py"), str(folder)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not (folder / "port").exists():
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(0.1)
        yield {
            "SNOWFLAKE_ACCOUNT": "fakesnow",
            "SNOWFLAKE_USER": "SQLMESH",
            "SNOWFLAKE_PASSWORD": "not-a-secret",
            "SNOWFLAKE_HOST": "localhost",
            "SNOWFLAKE_PORT": (folder / "port").read_text(),
            "REQUESTS_CA_BUNDLE": str(folder / "ca.pem"),
            "FAKESNOW_LOG": str(folder / "statements.jsonl"),
        }
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def environment(snowflake: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in snowflake.items():
        monkeypatch.setenv(name, value)
    return snowflake


def sent(environment: dict[str, str]) -> list[str]:
    with Path(environment["FAKESNOW_LOG"]).open(encoding="utf-8") as log:
        return [json.loads(line) for line in log]


def land(archive: Path, seen: set[Path]) -> None:
    """What Snowpipe does: each line of each new object becomes a row of the landing table."""
    import snowflake.connector

    files = sorted(set((archive / "streaming").rglob("*.json")) - seen)
    rows = [
        (line, file.relative_to(archive).as_posix(), number, file.parts[-3].removeprefix("date="))
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
    ]
    seen.update(files)
    connection = snowflake.connector.connect(
        account="fakesnow",
        user="SQLMESH",
        password=os.environ["SNOWFLAKE_PASSWORD"],
        host="localhost",
        port=int(os.environ["SNOWFLAKE_PORT"]),
        database="EGX_DW",
        schema="LANDING",
    )
    with connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO EGX_DW.LANDING.STOCK_PRICES_ARCHIVE VALUES (%s, %s, %s, %s)", rows)


def test_the_setup_runs_twice_and_prints_the_trust_policy(environment: dict[str, str]) -> None:
    for load in ("pipe", "pipe", "task"):
        ran = subprocess.run([*SETUP, "--load", load], capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        policy, _ = json.JSONDecoder().raw_decode(ran.stdout[ran.stdout.index("{") :])
        assert policy["Statement"][0] == {
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::210987654321:user/fake"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalId": "FAKE_SFCRole=1_x"}},
        }
        assert ("arn:aws:sqs:eu-central-1:210987654321:fake" in ran.stdout) == (load == "pipe")
    made = [statement for statement in sent(environment) if statement.startswith("CREATE ")]
    assert made
    assert all("IF NOT EXISTS" in statement for statement in made)


def test_a_dry_run_connects_to_nothing() -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SNOWFLAKE_")}
    ran = subprocess.run([*SETUP, "--dry-run"], capture_output=True, text=True, env=bare, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "CREATE STORAGE INTEGRATION IF NOT EXISTS EGX_ARCHIVE" in ran.stdout
    assert "METADATA$FILE_ROW_NUMBER" in ran.stdout
    assert "${" not in ran.stdout


def test_names_that_are_no_names_are_refused() -> None:
    ran = subprocess.run([*SETUP, "--dry-run", "--database", "X; DROP DATABASE Y"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "--database" in ran.stderr


def compared(rows: list[tuple[t.Any, ...]]) -> list[str]:
    """Rows as text, sorted; numbers as floats, since one connector gives int where the other gives Decimal."""
    return sorted(
        "|".join(repr(float(value)) if isinstance(value, Number) and not isinstance(value, bool) else str(value) for value in row)
        for row in rows
    )


@pytest.mark.timeout(900)
def test_gold_on_snowflake_equals_gold_on_duckdb(make_warehouse, environment: dict[str, str]) -> None:
    """Lint, plan, a restatement with a correction, a run, and a change in dev; the audits run in all of them."""
    assert subprocess.run(SETUP, capture_output=True, timeout=120).returncode == 0
    on_duckdb: Warehouse = make_warehouse("on_duckdb")
    archive = on_duckdb.archive
    days = trading_days(dt.date(2026, 7, 1), 45)
    seen: set[Path] = set()
    for number, symbol in enumerate(("COMI", "OTMT", "ETEL")):
        closes = [50 + number + (day.toordinal() * 7919 % 13) / 4 for day in days]
        deliver(archive, [
            daily(symbol, day, close, high=close + 1, low=close - 0.5, volume=1000 * (position % 9 + 1))
            for position, (day, close) in enumerate(zip(days, closes, strict=False))
        ])  # fmt: skip
    minutes = [bar("SWDY", f"{days[-1]}T07:{minute:02d}:00Z", 60 + minute / 10, f"{days[-1]}T12:{minute:02d}:01.5Z", "1 Minute")
               for minute in range(20)]  # fmt: skip
    deliver(archive, [*minutes, "{broken", {**daily("COMI", days[3], 1.0), "close": "N/A"}], 500, date=str(days[-1]))
    (archive / "batch").mkdir()
    (archive / "batch" / "COMI Historical Data.csv").write_text(
        '\ufeff"Date","Price","Open","High","Low","Vol.","Change %"\n'
        f'"{days[0]:%m/%d/%Y}","50.00","50.00","51.00","49.50","1.00K","0.1%"\n"06/30/2026","49.75","49.00","50.00","48.50","-","0.1%"\n'
    )

    from sqlmesh import Context

    land(archive, seen)
    context = Context(paths=str(PROJECT / "warehouse"), gateway="snowflake")
    try:
        assert context.lint_models() == []
        context.plan(auto_apply=True, no_prompts=True, skip_tests=True)
        deliver(archive, [daily("COMI", days[5], 55.5, f"{days[-1]}T15:00:00Z")], 900)
        land(archive, seen)
        context.plan(restate_models=["bronze.stock_prices_raw"], start=str(days[-1]), end=str(days[-1]),
                     auto_apply=True, no_prompts=True, skip_tests=True)  # fmt: skip
        from sqlmesh.utils import CompletionStatus

        assert context.run(ignore_cron=True) is not CompletionStatus.FAILURE
        on_duckdb.open()
        on_duckdb.plan()
        for name in GOLD:
            columns = on_duckdb.rows(f"SELECT column_name, column_type FROM (DESCRIBE {name})")
            # as numbers, because fakesnow sends a NULL timestamp as 1970-01-01
            wanted = ", ".join(
                f"DATE_PART(EPOCH_MICROSECOND, {column})" if kind == "TIMESTAMP" else column for column, kind in columns
            )
            theirs = context.engine_adapter.fetchall(f"SELECT {wanted} FROM {name}")
            ours = on_duckdb.rows(f"SELECT {wanted.replace('DATE_PART(EPOCH_MICROSECOND, ', 'EPOCH_US(')} FROM {name}")
            assert compared(theirs) == compared(ours), name
        assert on_duckdb.rows("SELECT close_price FROM gold.fct_stock_daily_prices WHERE symbol = 'COMI' AND "
                              f"trade_date = '{days[5]}'") == [(55.5,)]  # fmt: skip
        context.close()
        copy = on_duckdb.folder / "project"
        shutil.copytree(PROJECT / "warehouse", copy / "warehouse", ignore=shutil.ignore_patterns(".cache", "__pycache__"))
        model = copy / "warehouse" / "models" / "gold" / "fct_stock_daily_prices.sql"
        model.write_text(model.read_text().replace("volume > 1.5 * volume_ma_7d", "volume > 0.9 * volume_ma_7d"))
        context = Context(paths=str(copy / "warehouse"), gateway="snowflake")
        context.plan("dev", include_unmodified=True, auto_apply=True, no_prompts=True, skip_tests=True)
        (difference,) = context.table_diff(
            "prod", "dev", on=["symbol", "trade_date"], select_models={"gold.fct_stock_daily_prices"}, show=False
        )
        changed = on_duckdb.rows(
            "SELECT COUNT(*), COUNT_IF(volume > 0.9 * volume_ma_7d AND volume_signal <> 'HIGH') FROM gold.fct_stock_daily_prices"
        )
        rows = difference.row_diff()
        assert [(rows.full_match_count + rows.partial_match_count, rows.partial_match_count)] == changed
        assert (rows.s_only_count, rows.t_only_count) == (0, 0)
        assert rows.partial_match_count > 0
    finally:
        context.close()

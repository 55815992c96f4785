"""The same models through the real connector and TLS on a fakesnow server: gold equals gold on DuckDB, row for row."""

import contextlib
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import time
import typing as t
from numbers import Number
from pathlib import Path

import duckdb
import pytest
from archives import bar, daily, deliver, trading_days
from conftest import PROJECT, Warehouse
from snowflake.connector.errors import ProgrammingError
from sqlglot import exp, parse_one
from sqlglot.errors import ParseError
from sqlmesh import Context

from dataflows import gold
from dataflows.bar import CAIRO
from dataflows.calendar import egx
from deploy.snowflake import setup
from tests.deploy import compose
from tests.deploy.test_compose import AWS
from tests.deploy.test_grafana import filled, panels, suits
from warehouse.schedule import next_run

pytestmark = pytest.mark.servers

HERE = Path(__file__).parent
SETUP = [sys.executable, str(PROJECT / "deploy" / "snowflake" / "setup.py"), "--archive-url", "s3://egx-archive/egx"]
SETUP += ["--aws-role-arn", "arn:aws:iam::123456789012:role/egx-archive", "--user", "SQLMESH"]
GOLD = (
    "silver.stock_prices_cleaned",
    "silver.stock_price_versions",
    "silver.stock_prices_daily",
    "silver.stock_prices_momentum",
    "bronze.stock_prices_quarantine",
    "gold.dim_date",
    "gold.dim_stock",
    "gold.fct_stock_daily_prices",
    "gold.fct_stock_intraday_prices",
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


def land(archive: Path) -> None:
    """What COPY and Snowpipe do: each line of each object becomes a row of the landing table."""
    import snowflake.connector

    files = sorted((archive / "streaming").rglob("*.json"))
    rows = [
        (line, file.relative_to(archive).as_posix(), number, file.parts[-3].removeprefix("date="))
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
    ]
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
    assert all(re.search("IF NOT EXISTS|OR REPLACE (TASK|PIPE|FILE FORMAT)", statement) for statement in made)


def dry_run(*options: str) -> list[str]:
    """The statements of a dry run of the module, which connects to nothing, without any other argument than these."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SNOWFLAKE_")}
    command = [sys.executable, "-m", "deploy.snowflake.setup", "--dry-run", *options]
    ran = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=bare, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.removesuffix(";\n").split(";\n")


def test_a_dry_run_alone_prints_all_of_the_sql_with_placeholders() -> None:
    printed = ";\n".join(dry_run())
    assert "CREATE STORAGE INTEGRATION IF NOT EXISTS EGX_ARCHIVE" in printed
    assert "STORAGE_AWS_ROLE_ARN = '<aws-role-arn>'" in printed
    assert "URL = '<archive-url>/'" in printed
    assert "TO USER <user>" in printed
    assert "METADATA$FILE_ROW_NUMBER" in printed
    assert "${" not in printed


# What SQLGlot's Snowflake dialect has no grammar for.
UNPARSED = (
    r"CREATE ROLE IF NOT EXISTS \w+ COMMENT = '[^']+'",
    r"GRANT SELECT ON (ALL|FUTURE) VIEWS IN SCHEMA \w+\.\w+ TO ROLE \w+",
    r"GRANT ROLE \w+ TO (ROLE|USER) \w+",
    r"DROP (PIPE|TASK) IF EXISTS \w+\.\w+\.\w+",
    r"CREATE OR REPLACE TASK \w+\.\w+\.\w+ WAREHOUSE = \w+ SCHEDULE = 'USING CRON [^']+' AS (?P<copy>COPY INTO .*)",
    r"CREATE OR REPLACE PIPE \w+\.\w+\.\w+ AUTO_INGEST = TRUE AS (?P<copy>COPY INTO .*)",
    r"ALTER WAREHOUSE \w+ SET WAREHOUSE_SIZE = \w+",
    r"ALTER STORAGE INTEGRATION \w+ SET STORAGE_AWS_ROLE_ARN = '[^']+' STORAGE_ALLOWED_LOCATIONS = \('s3://[^']+/'\)",
    r"ALTER STAGE \w+\.\w+\.\w+ SET URL = 's3://[^']+/' STORAGE_INTEGRATION = \w+",
    r"ALTER TASK \w+\.\w+\.\w+ RESUME",
    r"ALTER PIPE \w+\.\w+\.\w+ REFRESH",
)


def understood(statement: str) -> exp.Expression:
    """The statement as SQLGlot reads Snowflake's SQL; of a task and a pipe what they run.

    Raises:
        ValueError: neither SQLGlot nor UNPARSED has such a statement.
    """
    parsed = parse_one(statement, dialect="snowflake")
    if not isinstance(parsed, exp.Command):
        return parsed
    words = " ".join(statement.split())
    found = next((found for form in UNPARSED if (found := re.fullmatch(form, words))), None)
    if found is None:
        raise ValueError(f"No statement of Snowflake: {words}")
    return understood(found["copy"]) if "copy" in found.groupdict() else parsed


@pytest.mark.parametrize("load", ["task", "pipe"])
def test_each_statement_of_the_setup_is_one_of_snowflake(load: str) -> None:
    """The double answers to most of them without reading them."""
    statements = setup.statements(setup.arguments([*SETUP[2:], "--load", load]), *setup.OBJECTS, f"5_load_{load}.sql")
    copies = [parsed for parsed in map(understood, statements) if isinstance(parsed, exp.Copy)]
    assert len(copies) == 2
    for copy in copies:
        assert copy.this.sql() == "EGX_DW.LANDING.STOCK_PRICES_ARCHIVE (line, archive_object, source_line, delivered_on)"
        assert len(copy.args["files"][0].this.expressions) == 4


def test_a_blank_line_is_no_error_and_no_text_is_null() -> None:
    (made,) = [statement for statement in dry_run() if "TYPE = CSV" in statement]
    options = {option.this.sql(): option.args["value"].sql() for option in understood(made).args["properties"].expressions}
    assert {name: options[name] for name in ("SKIP_BLANK_LINES", "EMPTY_FIELD_AS_NULL", "NULL_IF")} == {
        "SKIP_BLANK_LINES": "TRUE",
        "EMPTY_FIELD_AS_NULL": "FALSE",
        "NULL_IF": "()",
    }


def test_a_load_that_fails_stops_except_in_a_pipe_which_cannot_abort() -> None:
    for load in ("task", "pipe"):
        loads = [words for words in map(str.split, dry_run("--load", load)) if "COPY" in words]
        assert [(words[0], words[-2:]) for words in loads if words[-3] == "ON_ERROR"] == [
            (words[0], ["=", "SKIP_FILE" if "PIPE" in words else "ABORT_STATEMENT"]) for words in loads
        ]
        assert len(loads) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE ROLL IF NOT EXISTS EGX_READER COMMENT = 'Reads gold'",
        "GRANT USAGE WAREHOUSE EGX_WH TO ROLE EGX_READER",
        "CREATE OR REPLACE PIPE a.b.c AUTO_INGEST = TRUE AS COPY INTO a.b.c FROM (SELECT $1, FROM)",
        "ALTER TASK a.b.c RESUMED",
    ],
)
def test_a_statement_with_a_slip_is_none_of_snowflake(statement: str) -> None:
    with pytest.raises((ValueError, ParseError)):
        understood(statement)


def test_the_roles_have_these_grants_and_no_other() -> None:
    granted: dict[str, set[str]] = {}
    for statement in setup.statements(setup.arguments(SETUP[2:]), *setup.OBJECTS):
        if grant := re.fullmatch(r"GRANT (.+?)( ON .+)? TO (\w+ \w+)", statement):
            privileges, on, to = grant.groups(default="")
            granted.setdefault(to, set()).update(f"{privilege}{on}" for privilege in privileges.split(", "))
    assert granted == {
        "USER SQLMESH": {"ROLE EGX_TRANSFORMER"},
        "ROLE EGX_TRANSFORMER": {
            "USAGE ON WAREHOUSE EGX_WH",
            "USAGE ON DATABASE EGX_DW",
            "CREATE SCHEMA ON DATABASE EGX_DW",
            "USAGE ON SCHEMA EGX_DW.LANDING",
            "SELECT ON TABLE EGX_DW.LANDING.STOCK_PRICES_ARCHIVE",
            *(
                f"{privilege} ON SCHEMA EGX_DW.{schema}"
                for privilege in ("USAGE", "CREATE TABLE", "CREATE VIEW", "CREATE STAGE", "CREATE FILE FORMAT")
                for schema in ("BRONZE", "SILVER", "GOLD")
            ),
            "ROLE EGX_READER",
        },
        "ROLE EGX_READER": {
            "USAGE ON WAREHOUSE EGX_WH",
            "USAGE ON DATABASE EGX_DW",
            "USAGE ON SCHEMA EGX_DW.GOLD",
            "SELECT ON ALL VIEWS IN SCHEMA EGX_DW.GOLD",
            "SELECT ON FUTURE VIEWS IN SCHEMA EGX_DW.GOLD",
        },
    }


def test_a_set_up_with_other_values_changes_what_is_there() -> None:
    other = [
        "--archive-url",
        "s3://other/egx",
        "--aws-role-arn",
        "arn:aws:iam::123456789012:role/other",
        "--warehouse-size",
        "SMALL",
    ]
    other += ["--load-cron", "0 3 * * *"]
    changing = [statement for statement in dry_run(*other) if "IF NOT EXISTS" not in statement]
    for value in (
        "WAREHOUSE_SIZE = SMALL",
        "STORAGE_AWS_ROLE_ARN = 'arn:aws:iam::123456789012:role/other'",
        "STORAGE_ALLOWED_LOCATIONS = ('s3://other/egx/')",
        "URL = 's3://other/egx/'",
        "CRON 0 3 * * *",
    ):
        assert any(value in statement for statement in changing), value


def first_words(statements: list[str]) -> list[str]:
    return [" ".join(statement.split()[:2]) for statement in statements]


def test_one_way_of_loading_ends_the_other_and_takes_what_is_in_the_bucket_already() -> None:
    assert first_words(dry_run())[-4:] == ["DROP PIPE", "CREATE OR", "ALTER TASK", "COPY INTO"]
    pipe = dry_run("--load", "pipe")
    assert first_words(pipe)[-4:] == ["DROP TASK", "COPY INTO", "CREATE OR", "ALTER PIPE"]
    assert pipe[-1].strip() == "ALTER PIPE EGX_DW.LANDING.LOAD_ARCHIVE REFRESH"
    for load in ("task", "pipe"):
        (end,) = [statement for statement in dry_run("--load", load) if statement.strip().startswith("DROP ")]
        assert "IF EXISTS EGX_DW.LANDING.LOAD_ARCHIVE" in end


def test_the_task_loads_before_each_run_of_the_warehouse() -> None:
    (task,) = [statement for statement in dry_run() if "OR REPLACE TASK" in statement]
    minute, hours, *_ = re.findall(r"CRON (\S+) (\S+) \* \* \* Africa/Cairo", task)[0]
    loads = [dt.timedelta(hours=int(hour), minutes=int(minute)) for hour in hours.split(",")]
    day = dt.datetime(2026, 2, 16, tzinfo=CAIRO)  # Ramadan begins on 2026-02-18 or -19
    for date in (day, day + dt.timedelta(7)):
        time = date
        while (time := next_run(time, egx())) < date + dt.timedelta(1):
            waits = [time.astimezone(CAIRO).replace(tzinfo=None) - date.replace(tzinfo=None) - load for load in loads]
            assert min(wait for wait in waits if wait >= dt.timedelta()) == dt.timedelta(minutes=5)


def test_where_the_role_does_not_trust_snowflake_yet_the_policy_is_printed_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing(contextlib.AbstractContextManager):
        def cursor(self) -> "Refusing":
            return self

        def __exit__(self, *error: object) -> None: ...

        def execute(self, statement: str) -> "Refusing":
            if statement.startswith("COPY INTO"):
                raise ProgrammingError("Access Denied (AssumeRole)")
            return self

        def fetchall(self) -> list[tuple[str, ...]]:
            return [("STORAGE_AWS_IAM_USER_ARN", "String", "arn:x", ""), ("STORAGE_AWS_EXTERNAL_ID", "String", "id", "")]

    monkeypatch.setattr(setup, "connect", Refusing)
    assert setup.main(SETUP[2:]) == 1
    printed = capsys.readouterr()
    assert '"AWS": "arn:x"' in printed.out
    assert "Access Denied" in printed.err
    assert "give the role the trust policy above, then run this again" in printed.err


def test_without_a_dry_run_what_is_needed_is_asked_for() -> None:
    ran = subprocess.run(SETUP[:-2], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "--user is needed" in ran.stderr


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


def published_alike(on_snowflake: Warehouse, on_duckdb: Warehouse) -> None:
    """Each published file has the same columns, types and rows."""
    files = sorted(file.name for file in (on_duckdb.folder / "gold").iterdir())
    assert sorted(file.name for file in (on_snowflake.folder / "gold").iterdir()) == files
    assert {name.removesuffix(".parquet") for name in files} == {name.split(".")[1] for name in GOLD if name.startswith("gold.")}
    for file in files:
        theirs, ours = (duckdb.read_parquet(str(one.folder / "gold" / file)) for one in (on_snowflake, on_duckdb))
        assert (theirs.columns, theirs.types) == (ours.columns, ours.types), file
        assert sorted(map(repr, theirs.fetchall())) == sorted(map(repr, ours.fetchall())), file


def run_as_composed(on_snowflake: Warehouse, environment: dict[str, str], late: dt.date) -> None:
    """One run by the warehouse service of compose.yaml with the profile aws, which sees that objects of a date came late.

    Addresses and folders are the test's. The state is in a DuckDB file, as where EGX_STATE_POSTGRES is not set.
    """
    on_snowflake.close()
    variables = {**AWS, **{name: value for name, value in environment.items() if name.startswith("SNOWFLAKE_")}}
    service = compose.load(variables)["services"]["warehouse"]
    given = {
        **{name: value for name, value in os.environ.items() if not name.startswith("EGX_")},
        **compose.environment(service, variables),
        "EGX_INFLUXDB__TOKEN": "",
        "EGX_WAREHOUSE": str(on_snowflake.folder),
        "EGX_WAREHOUSE_ARCHIVE": str(on_snowflake.archive),
    }
    _, *command = service["command"]
    ran = subprocess.run(
        [sys.executable, *command, "--once", "--tries", "1"], cwd=PROJECT, env=given, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"Objects arrived late for {late}: loading again" in ran.stderr  # as JSON, as the service logs
    _, _, *command = service["healthcheck"]["test"]
    assert subprocess.run([sys.executable, *command], cwd=PROJECT, env=given).returncode == 0
    on_snowflake.open()


def panels_draw(on_snowflake: Warehouse) -> None:
    """Each query of Grafana's "EGX history (Snowflake)", asked through the connector, gives what its panel draws."""
    cursor = on_snowflake.context.engine_adapter.cursor
    for title, panel in panels("egx-history-snowflake").items():
        query = panel["targets"][0]["queryText"].replace("${symbol}", "ETEL")  # COMI has a bar without a volume
        cursor.execute(filled(query, ""))
        names = [column.name for column in cursor.description]
        try:
            suits(panel, [dict(zip(names, row, strict=True)) for row in cursor.fetchall()])
        except (AssertionError, KeyError, TypeError) as error:
            raise AssertionError(title) from error
        named = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
        assert named <= set(names), title


@pytest.mark.timeout(900)
def test_gold_on_snowflake_equals_gold_on_duckdb(
    make_warehouse, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lint, plan, a run with a correction that came late, the tests, and a change in dev; the audits run in all of them."""
    assert subprocess.run(SETUP, capture_output=True, timeout=120).returncode == 0
    on_snowflake: Warehouse = make_warehouse("on_snowflake", gateway="snowflake")
    archive = on_snowflake.archive
    today = dt.datetime.now(dt.UTC).date()
    days = [day for day in trading_days(today - dt.timedelta(80), 60) if day < today - dt.timedelta(3)][-45:]
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
    (archive / "batch" / "ETEL.csv").write_text(
        f"Date,Open,High,Low,Close,Volume\n{days[0] - dt.timedelta(7)},50,51,49,50.5,100\n"
    )

    land(archive)
    assert on_snowflake.context.lint_models() == []
    on_snowflake.plan()
    deliver(archive, [daily("COMI", days[5], 55.5, f"{days[-1]}T15:00:00Z")], 900)
    land(archive)  # all of it again, as where one way of loading follows the other
    run_as_composed(on_snowflake, environment, days[-1])
    # News of today, which a run adds to the rows that it keeps: a further day, a bar that turns out to be none, and minutes.
    was = {day for (day,) in on_snowflake.rows("SELECT trade_date FROM gold.fct_stock_daily_prices WHERE symbol = 'ETEL'")}
    now = f"{today}T00:00:00Z"
    news = [daily("COMI", today - dt.timedelta(2), 60, now), daily("ETEL", days[-2], 50, now, high=1)]
    deliver(archive, [*news, bar("SWDY", f"{days[-1]}T08:00:00Z", 70, now, "1 Minute")], 950, date=str(today))
    land(archive)
    (archive / "batch" / "ETEL.csv").unlink()
    history = archive / "batch" / "COMI Historical Data.csv"
    history.write_text(history.read_text().replace('"49.75"', '"49.50"'))
    assert on_snowflake.run()
    closes = "SELECT symbol, close FROM bronze.stock_prices_historical ORDER BY source_line"
    assert on_snowflake.rows(closes) == [("COMI", "50.00"), ("COMI", "49.50")]
    left = {day for (day,) in on_snowflake.rows("SELECT trade_date FROM gold.fct_stock_daily_prices WHERE symbol = 'ETEL'")}
    assert was - left == {days[-2], days[0] - dt.timedelta(7)}  # the file's day goes with it
    on_duckdb: Warehouse = make_warehouse("on_duckdb")
    on_duckdb.plan()
    for name in GOLD:
        query = f"SELECT * FROM {name}"
        assert compared(on_snowflake.rows(query)) == compared(on_duckdb.rows(query)), name
    query = f"SELECT close_price FROM gold.fct_stock_daily_prices WHERE symbol = 'COMI' AND trade_date = '{days[5]}'"
    assert on_duckdb.rows(query) == [(55.5,)]

    published_alike(on_snowflake, on_duckdb)
    monkeypatch.setenv("EGX_WAREHOUSE", str(on_snowflake.folder))
    assert gold.newest_days() == dict.fromkeys(("OIH", "ETEL", "SWDY"), days[-1]) | {"COMI": today - dt.timedelta(2)}
    assert {check.name: check.warn for check in gold.quality()}["rejected"] == 2
    printed = subprocess.run([sys.executable, "-m", "warehouse.snapshot"], cwd=PROJECT, capture_output=True, text=True)
    assert "Commercial International Bank" in printed.stdout, printed.stderr

    panels_draw(on_snowflake)

    context = on_snowflake.context
    gateway = context.config.gateways["snowflake"]
    context.config.gateways["snowflake"] = gateway.copy(update={"test_connection": gateway.connection})
    tested = context.test()
    assert tested.wasSuccessful(), tested.errors + tested.failures
    assert tested.testsRun >= 15
    assert any("sqlmesh_test" in statement for statement in sent(environment))
    audited = {"start": str(days[0]), "end": str(days[-1])}
    assert context.audit(models=iter([name for name in GOLD if name.startswith("gold.")]), **audited)
    assert not context.audit(models=iter(["bronze.stock_prices_quarantine"]), **audited)

    copy = on_snowflake.folder / "project"
    shutil.copytree(PROJECT / "warehouse", copy / "warehouse", ignore=shutil.ignore_patterns(".cache", "__pycache__"))
    model = copy / "warehouse" / "models" / "gold" / "fct_stock_daily_prices.sql"
    model.write_text(model.read_text().replace("volume > 1.5 * ROUND(", "volume > 0.9 * ROUND("))
    on_snowflake.close()
    on_snowflake.context = Context(paths=str(copy / "warehouse"), gateway="snowflake")
    on_snowflake.plan(environment="dev", include_unmodified=True)
    (difference,) = on_snowflake.context.table_diff(
        "prod", "dev", on=["symbol", "trade_date"], select_models={"gold.fct_stock_daily_prices"}, show=False
    )
    changed = on_duckdb.rows(
        "SELECT COUNT(*), COUNT_IF(volume > 0.9 * volume_ma_7d AND volume_signal <> 'HIGH') FROM gold.fct_stock_daily_prices"
    )
    rows = difference.row_diff()
    assert [(rows.full_match_count + rows.partial_match_count, rows.partial_match_count)] == changed
    assert (rows.s_only_count, rows.t_only_count) == (0, 0)
    assert rows.partial_match_count > 0
    on_snowflake.close()

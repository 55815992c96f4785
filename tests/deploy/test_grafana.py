"""Every query of every panel and alert, run against a real InfluxDB and the gold layer that a session has filled."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import pytest
import sqlglot
import yaml
from sqlmesh import Context

from connectors.influxdb import Server, fields, series
from dataflows import gold
from dataflows.calendar import egx
from dataflows.market import market as calendar_point
from dataflows.symbols import companies
from deploy.grafana.definitions import __main__ as definitions
from tests.dataflows.jobs import ROOT, Folder
from tests.deploy import compose
from tests.deploy.test_compose import LOCAL
from tests.servers.fixtures import InfluxdbServer
from tests.servers.flux import rows
from warehouse.run import publish_missing

GRAFANA = ROOT / "deploy" / "grafana"
SYMBOLS = ["COMI", "ETEL", "SWDY", "PHDC", "ORAS", "EKHO"]
LEGS = {"ingest", "live", "archive"}
VARIABLES = {"exchange": "EGX", "interval": "Daily", "symbol": "COMI", "symbols": "|".join(SYMBOLS)}
TRADED = {"COMI", "ETEL", "SWDY", "PHDC", "ORAS", "VLMR"}  # as gold names them: EKHO trades as VLMR


def dashboard(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GRAFANA / "dashboards" / f"{name}.json").read_text())
    return content


def panels(name: str) -> dict[str, dict[str, Any]]:
    return {f"{panel['title']} {panel['type']} {panel['id']}": panel for panel in dashboard(name)["panels"]}


def filled(query: str, bucket: str) -> str:
    """The query as Grafana sends it: its variables in their places."""
    query = re.sub(r"\$\{(\w+)(?::\w+)?\}", lambda match: VARIABLES[match[1]], query)
    for name, value in {
        "v.defaultBucket": f'"{bucket}"',
        "v.timeRangeStart": "-30d",
        "v.timeRangeStop": "now()",
        "v.windowPeriod": "1s",
    }.items():
        query = query.replace(name, value)
    return query


class Filled:
    """A bucket and a gold layer that one simulated session has filled."""

    def __init__(self, server: InfluxdbServer, bucket: str, gold: Path) -> None:
        self.server, self.bucket, self.gold = server, bucket, gold

    def flux(self, query: str) -> list[dict[str, Any]]:
        return rows(self.server, filled(query, self.bucket))

    def sql(self, query: str) -> list[dict[str, Any]]:
        sources = yaml.safe_load((GRAFANA / "provisioning/datasources/egx.yaml").read_text())["datasources"]
        first = next(source["jsonData"]["initSql"] for source in sources if source["uid"] == "egx-gold")
        connection = duckdb.connect()
        connection.execute(first.replace("/var/lib/egx/warehouse/gold", str(self.gold)))
        found = connection.execute(filled(query, ""))
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.fixture(scope="module")
def session(influxdb: InfluxdbServer, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    path = tmp_path_factory.mktemp("grafana")
    bucket = f"test-{path.name}-{dt.datetime.now(dt.UTC):%H%M%S%f}"
    folder = Folder(
        path,
        source={"symbols": SYMBOLS, "simulated": {"speed": 2_000, "history_sessions": 60, "minutes": 120}},
        live={"store": "influxdb"},
        influxdb={"url": influxdb.url, "org": influxdb.org, "bucket": bucket},
        metrics={"influxdb": True, "seconds": 0.2},
    )
    environment = {"EGX_INFLUXDB__TOKEN": influxdb.token, "EGX_WAREHOUSE": str(path / "warehouse")}
    job = folder.run("main", "-s", "1", **environment)
    assert job.process.returncode == 0, job.output
    subprocess.run(
        [sys.executable, "-m", "warehouse.schedule", "--once"], cwd=ROOT, env=folder.environment(**environment), check=True
    )
    return Filled(influxdb, bucket, path / "warehouse" / "gold")


def test_the_files_are_as_the_script_makes_them() -> None:
    for path, text in definitions.files().items():
        assert path.read_text() == text, f"{path}: run `just dashboards`"


def test_no_symbol_or_company_is_written_into_a_dashboard() -> None:
    for path in (GRAFANA / "dashboards").glob("*.json"):
        text = path.read_text()
        for symbol, company in companies().items():
            assert not re.search(rf"\b{symbol}\b", text), symbol
            assert company.name not in text


def test_every_panel_s_data_source_is_provisioned() -> None:
    provisioned = yaml.safe_load((GRAFANA / "provisioning/datasources/egx.yaml").read_text())["datasources"]
    known = {source["uid"]: source["type"] for source in provisioned}
    for path in (GRAFANA / "dashboards").glob("*.json"):
        content = json.loads(path.read_text())
        for panel in content["panels"]:
            for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
                assert known[source["uid"]] == source["type"]
    boxes = [panel["gridPos"] for panel in dashboard("egx-live")["panels"]]
    assert all(box["x"] + box["w"] <= 24 for box in boxes)


def every_panel() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((GRAFANA / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            yield path.stem, panel


def test_targets_have_the_form_that_their_plugins_read() -> None:
    for _, panel in every_panel():
        (target,) = panel["targets"]
        match panel["datasource"]["type"]:
            case "influxdb":
                assert set(target) == {"refId", "datasource", "query"}
            case "motherduck-duckdb-datasource":  # sqlutil.FormatQueryOption is a uint32: any text fails in Go's decoder
                assert target["format"] == 1
                assert type(target["format"]) is int
                assert target["rawQuery"] is True
            case kind:
                assert kind == "michelin-snowflake-datasource"
                assert target["queryType"] == "table"


# Of packages/grafana-data/src/valueFormats/categories.ts; a time's pattern and a currency stand after a colon.
UNITS = {"percent", "s", "cps", "short", "locale", "dateTimeFromNow", "dateTimeAsLocal", "time:YYYY-MM-DD", "currency:EGP"}


def test_units_are_ones_that_grafana_has() -> None:
    used = set()
    for _, panel in every_panel():
        used.add(panel["fieldConfig"]["defaults"].get("unit"))
        for override in panel["fieldConfig"]["overrides"]:
            used |= {entry["value"] for entry in override["properties"] if entry["id"] == "unit"}
    assert used - {None} == UNITS


def shown_columns(panel: dict[str, Any], names: Iterable[str]) -> list[str]:
    """The titles of a table's columns, in their order."""
    for transformation in panel["transformations"]:
        assert transformation["id"] == "organize"
        order, titles = (transformation["options"][key] for key in ("indexByName", "renameByName"))
        return [titles[name] for name in sorted(names, key=order.__getitem__)]
    return list(names)


def test_overrides_name_columns_that_are_there_by_case(session: Filled) -> None:
    for name, panel in every_panel():
        target = panel["targets"][0]
        sql = target.get("rawSql") or target.get("queryText")
        if not panel["fieldConfig"]["overrides"]:
            continue
        found = session.sql(sql) if sql else session.flux(target["query"])
        columns = shown_columns(panel, [key for key in found[0] if key not in ("result", "table")])
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in columns, (name, panel["title"])


def test_snowflake_s_columns_keep_their_case() -> None:
    for panel in dashboard("egx-history-snowflake")["panels"]:
        chosen = sqlglot.parse_one(panel["targets"][0]["queryText"], dialect="snowflake")
        assert all(isinstance(one, sqlglot.exp.Alias) and one.args["alias"].quoted for one in chosen.selects), panel["title"]


def test_the_market_s_table_begins_with_what_is_looked_for(session: Filled) -> None:
    panel = panel_of("egx-live", "Market")
    found = session.flux(panel["targets"][0]["query"])
    names = [key for key in found[0] if key not in ("result", "table")]
    assert shown_columns(panel, names)[:6] == ["Symbol", "Company", "الشركة", "Last", "Change", "30 days"]
    (state,) = [
        one
        for one in panel_of("egx-live", "Newest bar of each symbol")["fieldConfig"]["overrides"]
        if one["matcher"]["options"] == "State"
    ]
    (words,) = [entry["value"][0]["options"] for entry in state["properties"] if entry["id"] == "mappings"]
    assert {value: word["text"] for value, word in words.items()} == {"0": "fresh", "1": "stale"}


def test_panels_of_daily_bars_only_say_so() -> None:
    of_days = {panel["title"] for panel in dashboard("egx-live")["panels"] if '"Daily"' in panel["targets"][0]["query"]}
    assert of_days == {panel["title"] for panel in dashboard("egx-live")["panels"] if "Of Daily bars" in panel["description"]}
    assert len(of_days) == 8


def test_egx_live_opens_on_daily_bars() -> None:
    current = {choice["name"]: choice["current"] for choice in dashboard("egx-live")["templating"]["list"]}
    assert current["interval"] == {"text": "Daily", "value": "Daily"}


def test_price_lines_have_no_more_points_than_the_panel_has_room_for(session: Filled) -> None:
    query = query_of("egx-live", "Prices").replace("v.windowPeriod", "15d")
    found = session.flux(query)
    assert {row["symbol"] for row in found} == set(SYMBOLS)
    assert len(found) <= 3 * len(SYMBOLS)


def number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def suits(panel: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """Fails unless the rows are what such a panel draws."""
    assert found, "no rows"
    match panel["type"]:
        case "candlestick":
            for row in found:
                assert all(number(float(row[key])) for key in ("open", "high", "low", "close", "volume"))
            times = [row.get("_time") or row["time"] for row in found]
            assert times == sorted(times)
        case "timeseries":
            assert all(isinstance(row.get("_time") or row.get("time"), dt.datetime) for row in found)
            assert any(number(row["_value"]) if "_value" in row else len(row) > 1 for row in found)
        case "stat":
            assert all(number(row["_value"]) for row in found)
        case "bargauge":
            assert all(isinstance(row["symbol"], str) for row in found)
            columns = [key for key, value in found[0].items() if key not in ("result", "table", "symbol") and value is not None]
            assert len(columns) == 1
            assert all(number(float(row[columns[0]])) for row in found)
        case kind:
            assert kind == "table"
            assert len(found[0]) > 1


@pytest.mark.parametrize(("movers", "count"), [("Top gainers", "Rising"), ("Top losers", "Falling")])
def test_the_movers_are_those_that_are_counted(session: Filled, movers: str, count: str) -> None:
    (counted,) = session.flux(query_of("egx-live", count))
    found = session.flux(query_of("egx-live", movers))
    assert len(found) == min(5, counted["_value"])  # none on a day on which all rise, or fall
    if found:
        suits(panel_of("egx-live", movers), found)


@pytest.mark.parametrize("title", [title for title in panels("egx-live") if not title.startswith("Top ")])
def test_a_query_of_egx_live_gives_what_its_panel_draws(session: Filled, title: str) -> None:
    panel = panels("egx-live")[title]
    suits(panel, session.flux(panel["targets"][0]["query"]))


@pytest.mark.parametrize("title", panels("egx-pipeline"))
def test_a_query_of_the_pipeline_gives_what_its_panel_draws(session: Filled, title: str) -> None:
    panel = panels("egx-pipeline")[title]
    found = session.flux(panel["targets"][0]["query"])
    suits(panel, found)
    if panel["type"] in ("stat", "timeseries"):
        legs = {row["leg"] for row in found}
        assert legs
        assert legs <= LEGS


@pytest.mark.parametrize("title", panels("egx-history"))
def test_a_query_of_egx_history_gives_what_its_panel_draws(session: Filled, title: str) -> None:
    panel = panels("egx-history")[title]
    suits(panel, session.sql(panel["targets"][0]["rawSql"]))


def test_before_the_first_run_egx_history_has_no_data_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EGX_WAREHOUSE", "EGX_WAREHOUSE_ARCHIVE"):
        monkeypatch.setenv(name, str(tmp_path))
    context = Context(paths=str(ROOT / "warehouse"))
    publish_missing(context)
    context.close()
    empty = Filled(None, "", tmp_path / "gold")
    for title, panel in panels("egx-history").items():
        assert empty.sql(panel["targets"][0]["rawSql"]) == [], title
    assert (gold.quality(), gold.newest_days()) == ([], {})
    printed = subprocess.run([sys.executable, "-m", "warehouse.snapshot"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (printed.returncode, printed.stdout) == (1, "")
    assert "gold has no rows: no run has succeeded yet, or the archive is empty" in printed.stderr


def test_the_documented_plugins_are_those_of_the_data_sources_pinned() -> None:
    (line,) = [one for one in (ROOT / "docs/operations.md").read_text().splitlines() if one.startswith("GRAFANA_PLUGINS=")]
    plugins = [one.split("@") for one in line.removeprefix("GRAFANA_PLUGINS=").split(",")]
    used = {panel["datasource"]["type"] for _, panel in every_panel()} - {"influxdb"}
    assert {name for name, _, _ in plugins} == used
    assert all(f"/v{version}/" in address and address.endswith(".zip") for _, version, address in plugins)
    default = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["grafana"]["environment"]
    assert line.removeprefix("GRAFANA_PLUGINS=").split(",")[0] in default["GF_PLUGINS_PREINSTALL_SYNC"]
    assert set(default["GF_PLUGINS_ALLOW_LOADING_UNSIGNED_PLUGINS"].split(",")) == used


def test_snowflake_s_dashboard_asks_the_same() -> None:
    theirs = [panel["targets"][0]["queryText"] for panel in dashboard("egx-history-snowflake")["panels"]]
    assert theirs == [panel["targets"][0]["rawSql"] for panel in dashboard("egx-history")["panels"]]


def test_choices_come_from_the_data(session: Filled) -> None:
    choices = {choice["name"]: choice["query"]["query"] for choice in dashboard("egx-live")["templating"]["list"]}
    assert {row["_value"] for row in session.flux(choices["exchange"])} == {"EGX"}
    assert {row["_value"] for row in session.flux(choices["interval"])} == {"Daily", "1 Minute"}
    assert {row["_value"] for row in session.flux(choices["symbol"])} == set(SYMBOLS)
    (choice,) = dashboard("egx-history")["templating"]["list"]
    assert {row["symbol"] for row in session.sql(choice["query"])} == TRADED


def test_bars_are_expected_of_the_symbols_that_are_fetched(session: Filled) -> None:
    found = session.flux(
        'from(bucket: v.defaultBucket) |> range(start: -2h) |> filter(fn: (r) => r._field == "expected") |> last()'
    )
    assert {row["symbol"] for row in found} == set(companies())
    assert {row["symbol"] for row in found if row["_value"]} == set(SYMBOLS)


def panel_of(name: str, title: str) -> dict[str, Any]:
    found: dict[str, Any] = next(panel for panel in dashboard(name)["panels"] if panel["title"] == title)
    return found


def query_of(name: str, title: str) -> str:
    query: str = panel_of(name, title)["targets"][0]["query"]
    return query


def test_the_market_s_table_has_every_symbol_with_its_company_and_its_change(session: Filled) -> None:
    found = {row["symbol"]: row for row in session.flux(query_of("egx-live", "Market"))}
    assert set(found) == set(SYMBOLS)
    closes: dict[str, list[float]] = {}
    raw = session.flux(
        'from(bucket: v.defaultBucket) |> range(start: -30d, stop: 1d) |> filter(fn: (r) => r.interval == "Daily" and '
        'r._field == "close") |> group(columns: ["symbol"]) |> sort(columns: ["_time"])'
    )
    for row in raw:
        closes.setdefault(row["symbol"], []).append(row["_value"])
    for symbol, row in found.items():
        company = companies()[symbol]
        assert (row["company"], row["company_ar"], row["currency"]) == (company.name, company.name_ar, company.currency)
        assert row["last"] == closes[symbol][-1]
        assert row["change"] == pytest.approx(100 * (closes[symbol][-1] / closes[symbol][-2] - 1))
        assert row["month"] == pytest.approx(100 * (closes[symbol][-1] / closes[symbol][0] - 1))
        assert row["volume"] > 0


def test_rising_and_falling_are_those_of_the_market_s_table(session: Filled) -> None:
    changes = [row["change"] for row in session.flux(query_of("egx-live", "Market"))]
    rising, falling = (session.flux(query_of("egx-live", title)) for title in ("Rising", "Falling"))
    assert [row["_value"] for row in rising] == [sum(change > 0 for change in changes)]
    assert [row["_value"] for row in falling] == [sum(change < 0 for change in changes)]
    gainers = session.flux(query_of("egx-live", "Top gainers"))
    assert [row["change"] for row in gainers] == pytest.approx(sorted((c for c in changes if c > 0), reverse=True)[:5])


def test_the_pipeline_s_records_are_those_of_the_run(session: Filled) -> None:
    written = {row["leg"]: row["_value"] for row in session.flux(query_of("egx-pipeline", "Records written"))}
    assert set(written) == LEGS
    assert len(set(written.values())) == 1
    checks = {row["check"]: row["ok"] for row in session.flux(query_of("egx-pipeline", "Data quality, last warehouse run"))}
    assert checks["bars"] > 0


def test_where_nothing_falls_the_number_is_zero(influxdb: InfluxdbServer, unique_name: str) -> None:
    server = Server(influxdb.url, influxdb.org, unique_name, influxdb.token)
    server.retention_seconds()
    now = dt.datetime.now(dt.UTC).timestamp()
    tags = {"symbol": "HERE", "exchange": "EGX", "interval": "Daily"}
    bars = [(age, fields({"close": price})) for age, price in ((2, 1.0), (1, 1.5))]
    server.write(b"\n".join(b"%b %b %d" % (series("stock_price", tags), values, int((now - age) * 1e6)) for age, values in bars))
    found = {title: rows(influxdb, filled(query_of("egx-live", title), unique_name)) for title in ("Rising", "Falling")}
    assert {title: [row["_value"] for row in some] for title, some in found.items()} == {"Rising": [1], "Falling": [0]}


def test_the_legs_reports_are_one_table_with_a_row_each(session: Filled) -> None:
    found = session.flux(query_of("egx-pipeline", "Last report of each leg"))
    assert {row["table"] for row in found} == {0}, "a frame each would show one leg"
    assert {row["leg"]: row["state"] for row in found} == dict.fromkeys(LEGS, "ended")
    assert all(set(row) == {"result", "table", "leg", "state", "seconds"} for row in found)


# Alerts

HOUR, DAY = 3_600, 86_400


def rules() -> dict[str, dict[str, Any]]:
    groups = json.loads((GRAFANA / "provisioning/alerting/egx.json").read_text())["groups"]
    return {rule["uid"]: rule for group in groups for rule in group["rules"]}


# Field names as Grafana's page "Use configuration files to provision alerting resources" has them.
TEXT = {"type": "string", "minLength": 1}
DURATION = {"type": "string", "pattern": r"^\d+[smhdw]$"}
ROUTE = {
    "orgId": {"type": "integer"},
    "receiver": TEXT,
    "group_by": {"type": "array", "items": TEXT},
    "matchers": {"type": "array", "items": TEXT},
    "object_matchers": {"type": "array", "items": {"type": "array", "items": TEXT, "minItems": 3, "maxItems": 3}},
    "mute_time_intervals": {"type": "array", "items": TEXT},
    "continue": {"type": "boolean"},
    **dict.fromkeys(("group_wait", "group_interval", "repeat_interval"), DURATION),
}
RECEIVER = {"uid": TEXT, "type": TEXT, "settings": {"type": "object"}, "disableResolveMessage": {"type": "boolean"}}


def a_list_of(required: list[str], **properties: Any) -> dict[str, Any]:
    one = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": "array", "items": one, "minItems": 1}


NOTIFY = {
    "type": "object",
    "properties": {
        "apiVersion": {"const": 1},
        "contactPoints": a_list_of(
            ["name", "receivers"],
            orgId={"type": "integer"},
            name=TEXT,
            receivers=a_list_of(["uid", "type", "settings"], **RECEIVER),
        ),
        "policies": a_list_of(["receiver", "group_by"], **ROUTE, routes=a_list_of(["receiver", "object_matchers"], **ROUTE)),
    },
    "required": ["apiVersion", "contactPoints", "policies"],
    "additionalProperties": False,
}


def notify(**variables: str) -> dict[str, Any]:
    """Where alerts go, as Grafana reads it with these variables in .env: it fills in `$NAME` from its environment."""
    environment = compose.load({**LOCAL, **variables})["services"]["grafana"]["environment"]
    text = (GRAFANA / "provisioning/alerting/notify.yaml").read_text()
    found = yaml.safe_load(re.sub(r"\$(\w+)", lambda match: json.dumps(environment[match[1]]), text))
    jsonschema.validate(found, NOTIFY)
    assert isinstance(found, dict)
    return found


def test_alerts_go_where_the_environment_says() -> None:
    (quiet,) = notify()["contactPoints"][0]["receivers"]
    assert (quiet["type"], quiet["settings"]["addresses"]) == ("email", "nobody@localhost")
    (hook,) = notify(ALERTS_BY="slack", ALERTS_URL="https://example.test/hook")["contactPoints"][0]["receivers"]
    assert (hook["type"], hook["settings"]["url"]) == ("slack", "https://example.test/hook")
    (mail,) = notify(ALERTS_EMAIL="me@example.test;you@example.test")["contactPoints"][0]["receivers"]
    assert mail["settings"]["addresses"] == "me@example.test;you@example.test"


@pytest.mark.parametrize(("host", "enabled"), [("", ""), ("mail.example.test:587", "true")])
def test_grafana_sends_mail_once_there_is_a_server(host: str, enabled: str) -> None:
    environment = compose.load({**LOCAL, "SMTP_HOST": host})["services"]["grafana"]["environment"]
    assert (environment["GF_SMTP_HOST"], environment["GF_SMTP_ENABLED"]) == (host, enabled)


def test_every_alert_is_sent_by_leg_and_warnings_less_often() -> None:
    (policy,) = notify()["policies"]
    (warnings,) = policy["routes"]
    names = {point["name"] for point in notify()["contactPoints"]}
    assert {policy["receiver"], warnings["receiver"]} <= names
    assert {"alertname", "leg"} <= set(policy["group_by"])
    assert not {"symbol", "check"} & set(policy["group_by"]), "a source that is down is one message"
    ((label, _, value),) = warnings["object_matchers"]
    assert {uid for uid, rule in rules().items() if rule["labels"][label] == value} == {"egx-quality"}
    assert (policy["repeat_interval"], warnings["repeat_interval"]) == ("4h", "24h")


def firing(uid: str, server: InfluxdbServer, bucket: str) -> set[str]:
    """The series (by leg, symbol or target) of which the last value is above the rule's threshold."""
    asked, _, threshold = rules()[uid]["data"]
    limit = threshold["model"]["conditions"][0]["evaluator"]["params"][0]
    found = rows(server, filled(asked["model"]["query"], bucket))
    assert all(number(row["_value"]) and isinstance(row["_time"], dt.datetime) for row in found)
    return {
        next(row[tag] for tag in ("symbol", "leg", "target", "check") if tag in row) for row in found if row["_value"] > limit
    }


@pytest.mark.parametrize(("later", "stale"), [(HOUR, set()), (15 * DAY, set(SYMBOLS))])
def test_after_a_good_session_no_alert_fires_until_the_next(session: Filled, later: float, stale: set[str]) -> None:
    server = Server(session.server.url, session.server.org, session.bucket, session.server.token)
    played = egx().last_over(dt.datetime.now(dt.UTC))  # as the simulated source does by default
    written = dt.datetime.now(dt.UTC).timestamp()
    point, _, _ = calendar_point(egx(), "EGX", played.close + dt.timedelta(seconds=later)).rpartition(b" ")
    server.write(b"%b %d" % (point, int(written * 1e6)))
    found = {uid: firing(uid, session.server, session.bucket) for uid in rules()}
    assert found == {uid: stale if uid == "egx-stale-symbol" else set() for uid in rules()}


@pytest.fixture
def told(influxdb: InfluxdbServer, unique_name: str) -> Callable[..., dict[str, set[str]]]:
    """Which alerts fire, and for what, after points have been written: (measurement, tags, fields, age in seconds)."""
    server = Server(influxdb.url, influxdb.org, unique_name, influxdb.token)
    server.retention_seconds()
    now = dt.datetime.now(dt.UTC).timestamp()

    def write(*points: tuple[str, dict[str, str], dict[str, Any], float]) -> dict[str, set[str]]:
        lines = [b"%b %b %d" % (series(name, tags), fields(values), int((now - age) * 1e6)) for name, tags, values, age in points]
        server.write(b"\n".join(lines))
        found = {uid: firing(uid, influxdb, unique_name) for uid in rules()}
        return {uid: names for uid, names in found.items() if names}

    return write


Told = Callable[..., dict[str, set[str]]]


def market(is_open: bool, opened_ago: float, age: float = 1) -> tuple[str, dict[str, str], dict[str, Any], float]:
    now = dt.datetime.now(dt.UTC).timestamp()
    opens = now - opened_ago if is_open else now + HOUR
    values = {"session_open": int(is_open), "expected_at": now - opened_ago, "opens_at": opens, "closes_at": opens + 4.5 * HOUR}
    return "market", {"exchange": "EGX"}, values, age


def leg(name: str, age: float = 1, **values: Any) -> tuple[str, dict[str, str], dict[str, Any], float]:
    return "pipeline", {"leg": name}, {"up": True, "failed": False, "uptime_seconds": 1e6, "rejected": 0, **values}, age


def test_a_symbol_without_a_bar_of_the_session_is_stale(told: Told) -> None:
    bars = {"exchange": "EGX", "interval": "Daily"}
    assert told(
        market(True, HOUR),
        *(
            ("company", {"symbol": symbol}, {"expected": symbol != "GONE"}, 1)
            for symbol in ("HERE", "MINUTES", "LATE", "WEEKS", "GONE")
        ),
        ("stock_price", {"symbol": "HERE", **bars}, {"close": 1.0}, HOUR / 2),
        # Tags order the series: "1 Minute" comes before "Daily", "5 Minute" too, and "Monthly" after.
        ("stock_price", {"symbol": "HERE", **bars, "interval": "1 Minute"}, {"close": 1.0}, 2 * DAY),
        ("stock_price", {"symbol": "MINUTES", **bars}, {"close": 1.0}, DAY),
        ("stock_price", {"symbol": "MINUTES", **bars, "interval": "1 Minute"}, {"close": 1.0}, HOUR / 2),
        ("stock_price", {"symbol": "LATE", **bars}, {"close": 1.0}, DAY),
        ("stock_price", {"symbol": "LATE", **bars, "interval": "Monthly"}, {"close": 1.0}, HOUR / 2),
        ("stock_price", {"symbol": "WEEKS", **bars, "interval": "Weekly"}, {"close": 1.0}, 3 * DAY),
        ("stock_price", {"symbol": "GONE", **bars}, {"close": 1.0}, 9 * DAY),
    ) == {"egx-stale-symbol": {"LATE"}}


@pytest.mark.parametrize(
    ("is_open", "opened_ago", "written_ago", "fires"),
    [
        (True, 3 * HOUR, 1_300, True),
        (True, 3 * HOUR, 1_100, False),
        (False, 3 * HOUR, DAY, False),
        (True, DAY, DAY, False),  # today's session is open, and too young for its bars to be there
    ],
)
def test_a_source_without_news_while_the_session_is_open_is_stale(
    told: Told, is_open: bool, opened_ago: float, written_ago: float, fires: bool
) -> None:
    written = dt.datetime.now(dt.UTC).timestamp() - written_ago
    found = told(market(is_open, opened_ago), leg("live", last_write_at=written))
    assert found == ({"egx-source-stale": {"live"}} if fires else {})


def test_a_leg_far_behind_fires(told: Told) -> None:
    assert told(leg("live", lag=10_001), leg("archive", lag=10_000)) == {"egx-lag": {"live"}}


def test_rejected_messages_fire_for_a_quarter_of_an_hour(told: Told) -> None:
    assert told(
        leg("live", 800, rejected=7),
        leg("live", 1, rejected=7),  # all of it long ago
        leg("archive", 800, rejected=7),
        leg("archive", 1, rejected=9),
        leg("ingest", 800, rejected=7),
        leg("ingest", 1, rejected=2, uptime_seconds=20.0),  # since it was started again
    ) == {"egx-dead-letters": {"archive", "ingest"}}


def test_a_leg_that_is_silent_or_failed_is_down_and_one_that_ended_is_not(told: Told) -> None:
    assert told(leg("live", 25 * HOUR), leg("archive", 2 * HOUR, up=False), leg("ingest", 120, up=False, failed=True)) == {
        "egx-process-down": {"live", "ingest"}
    }


@pytest.mark.parametrize("is_open", [True, False])
def test_a_leg_that_was_stopped_fires_while_a_session_is_open(told: Told, is_open: bool) -> None:
    assert told(
        market(is_open, 2 * HOUR, DAY / 2),  # written long ago: no leg is up any more
        leg("ingest", HOUR, up=False, stopped=True),
        leg("live", 60, up=False, stopped=True),  # somebody may be at it
        leg("archive", HOUR, up=False, stopped=False),
    ) == ({"egx-stopped": {"ingest"}} if is_open else {})


def test_a_leg_that_reported_just_now_is_not_down(told: Told) -> None:
    assert told(leg("live", 2 * HOUR, up=False), leg("live", 30)) == {}


@pytest.mark.parametrize(
    ("ok", "age", "fires"),
    [
        (1, 29 * HOUR, {}),
        (1, 4 * DAY, {"egx-schedule-down": {"gold"}}),
        (0, HOUR, {"egx-warehouse": {"gold"}}),
    ],
)
def test_a_warehouse_run_that_failed_or_is_missing_fires(told: Told, ok: int, age: float, fires: dict[str, set[str]]) -> None:
    assert told(("warehouse", {"target": "gold"}, {"ok": ok, "seconds": 9.0}, age)) == fires


def test_a_check_that_finds_more_to_look_at_warns_until_the_next_run(told: Told) -> None:
    def run(age: float, **counts: int) -> list[tuple[str, dict[str, str], dict[str, Any], float]]:
        return [("quality", {"check": check}, {"ok": 5, "warn": warn}, age) for check, warn in counts.items()]

    assert told(*run(2 * DAY, bars=30, freshness=2), *run(DAY, bars=32, freshness=2)) == {"egx-quality": {"bars"}}
    assert told(*run(HOUR, bars=32, freshness=1)) == {}
    assert rules()["egx-quality"]["labels"]["severity"] == "warning"


def test_only_what_never_ran_at_all_fires_without_data() -> None:
    states = {uid: rule["noDataState"] for uid, rule in rules().items()}
    assert {uid for uid, state in states.items() if state != "OK"} == {"egx-process-down", "egx-schedule-down"}

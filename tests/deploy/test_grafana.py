"""Every query of every panel and alert, run against a real InfluxDB and the gold layer that a session has filled."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest
import yaml

from connectors.influxdb import Server, fields, series
from page.stores import companies
from tests.dataflows.jobs import ROOT, Folder
from tests.servers.fixtures import InfluxdbServer
from tests.servers.flux import rows

GRAFANA = ROOT / "deploy" / "grafana"
SYMBOLS = ["COMI", "ETEL", "SWDY", "PHDC", "ORAS", "EKHO"]
LEGS = {"ingest", "live", "archive"}
VARIABLES = {"exchange": "EGX", "interval": "Daily", "symbol": "COMI", "symbols": "|".join(SYMBOLS)}
TRADED = {"COMI", "ETEL", "SWDY", "PHDC", "ORAS", "VLMR"}  # as gold names them: EKHO trades as VLMR


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards", GRAFANA / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    for path, text in maker().files().items():
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


@pytest.mark.parametrize("title", panels("egx-live"))
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


def query_of(name: str, title: str) -> str:
    query: str = next(panel for panel in dashboard(name)["panels"] if panel["title"] == title)["targets"][0]["query"]
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
    assert sum(row["_value"] for row in rising) == sum(change > 0 for change in changes)
    assert sum(row["_value"] for row in falling) == sum(change < 0 for change in changes)
    gainers = session.flux(query_of("egx-live", "Top gainers"))
    assert [row["change"] for row in gainers] == pytest.approx(sorted((c for c in changes if c > 0), reverse=True)[:5])


def test_the_pipeline_s_records_are_those_of_the_run(session: Filled) -> None:
    written = {row["leg"]: row["_value"] for row in session.flux(query_of("egx-pipeline", "Records written"))}
    assert set(written) == LEGS
    assert len(set(written.values())) == 1
    checks = {row["check"]: row["ok"] for row in session.flux(query_of("egx-pipeline", "Data quality, last warehouse run"))}
    assert checks["bars"] > 0


# Alerts


def rules() -> dict[str, dict[str, Any]]:
    groups = json.loads((GRAFANA / "provisioning/alerting/egx.json").read_text())["groups"]
    return {rule["uid"]: rule for group in groups for rule in group["rules"]}


def firing(uid: str, server: InfluxdbServer, bucket: str) -> set[str]:
    """The series (by leg, symbol or target) of which the last value is above the rule's threshold."""
    asked, _, threshold = rules()[uid]["data"]
    limit = threshold["model"]["conditions"][0]["evaluator"]["params"][0]
    found = rows(server, filled(asked["model"]["query"], bucket))
    assert all(number(row["_value"]) and isinstance(row["_time"], dt.datetime) for row in found)
    return {row.get("symbol") or row.get("leg") or row["target"] for row in found if row["_value"] > limit}


def test_after_a_good_session_no_alert_fires(session: Filled) -> None:
    assert {uid: firing(uid, session.server, session.bucket) for uid in rules() if uid != "egx-process-down"} == {
        "egx-stale-symbol": set(),
        "egx-lag": set(),
        "egx-dead-letters": set(),
        "egx-warehouse": set(),
    }


def test_each_alert_fires_for_what_it_is_about(influxdb: InfluxdbServer, unique_name: str) -> None:
    server = Server(influxdb.url, influxdb.org, unique_name, influxdb.token)
    server.retention_seconds()
    now = dt.datetime.now(dt.UTC)

    def line(measurement: str, tags: dict[str, str], values: dict[str, Any], age: float = 1) -> bytes:
        return b"%b %b %d" % (series(measurement, tags), fields(values), int((now.timestamp() - age) * 1e6))

    day = 86_400
    bars = {"exchange": "EGX", "interval": "Daily"}
    server.write(
        b"\n".join(
            [
                line("market", {"exchange": "EGX"}, {"session_open": 1, "expected_at": now.timestamp() - day / 2}),
                *(line("company", {"symbol": s}, {"listed": s != "GONE"}) for s in ("HERE", "LATE", "GONE")),
                line("stock_price", {"symbol": "HERE", **bars}, {"close": 1.0}, day / 4),
                line("stock_price", {"symbol": "LATE", **bars}, {"close": 1.0}, day),
                line("stock_price", {"symbol": "GONE", **bars}, {"close": 1.0}, 9 * day),
                line("pipeline", {"leg": "live"}, {"up": True, "lag": 10_001, "rejected": 0}),
                line("pipeline", {"leg": "archive"}, {"up": True, "lag": 10_000, "rejected": 2}, 120),
                line("warehouse", {"target": "gold"}, {"ok": 0, "seconds": 9.0}),
            ]
        )
    )
    assert {uid: firing(uid, influxdb, unique_name) for uid in rules()} == {
        "egx-stale-symbol": {"LATE"},
        "egx-lag": {"live"},
        "egx-dead-letters": {"archive"},
        "egx-process-down": {"archive"},
        "egx-warehouse": {"gold"},
    }

"""compose.yaml by its schema and by what the platform asks of it; no Docker needed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy import compose
from tests.servers.build import ARTEFACTS

SCHEMA = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
EXAMPLE = compose.env_file(compose.ROOT / ".env.example", {})
LOCAL = {
    **EXAMPLE,
    "COMPOSE_PROFILES": "local,kafka",
    **dict.fromkeys(("INFLUXDB_TOKEN", "INFLUXDB_PASSWORD", "GRAFANA_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"), "given"),
}
SNOWFLAKE = ("SNOWFLAKE_ACCOUNT", "SNOWFLAKE_USER")
AWS = {
    **LOCAL,
    "EGX_PROFILE": "aws",
    "COMPOSE_PROFILES": "aws,kafka",
    **dict.fromkeys(("EGX_BUCKET", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *SNOWFLAKE), "given"),
    "SNOWFLAKE_PASSWORD": "given",
}
LEGS = ("ingest", "live", "archive")
OURS = (*LEGS, "warehouse")
SERVICES = ("kafka", "kafka-ui", "influxdb", "s3", *OURS, "grafana")
PORTS = {"kafka": 9092, "kafka-ui": 8082, "influxdb": 8086, "s3": 7070, "grafana": 3000}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = compose.load(LOCAL)["services"]
    return services


def environments(variables: dict[str, str]) -> dict[str, dict[str, str]]:
    return {name: compose.environment(service, variables) for name, service in compose.load(variables)["services"].items()}


@pytest.mark.parametrize("variables", [LOCAL, AWS], ids=["local", "aws"])
def test_it_is_valid_by_the_schema_of_the_specification(variables: dict[str, str]) -> None:
    jsonschema.validate(compose.load(variables), SCHEMA)


def test_the_schema_refuses_a_misspelt_key() -> None:
    project = compose.load(LOCAL)
    project["services"]["kafka"]["mem_limits"] = "1g"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(project, SCHEMA)


def test_kafka_tells_clients_on_the_host_the_port_that_is_published() -> None:
    kafka = compose.load({**LOCAL, "KAFKA_PORT": "19092"})["services"]["kafka"]
    assert kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"].endswith("HOST://127.0.0.1:19092")
    assert kafka["ports"] == ["127.0.0.1:19092:29092"]


def test_one_bucket_and_organisation_are_made_written_and_shown(services: dict[str, Any]) -> None:
    made = services["influxdb"]["environment"]
    settings = (compose.ROOT / "config.yaml").read_text()
    source = yaml.safe_load((compose.ROOT / "deploy/grafana/provisioning/datasources/egx.yaml").read_text())["datasources"][0]
    organisation, bucket = made["DOCKER_INFLUXDB_INIT_ORG"], made["DOCKER_INFLUXDB_INIT_BUCKET"]
    assert services["live"]["environment"]["EGX_INFLUXDB__ORG"] == organisation
    assert yaml.safe_load(settings)["influxdb"]["bucket"] == bucket
    assert f"{yaml.safe_load(settings)['influxdb']['retain_days']}d" == made["DOCKER_INFLUXDB_INIT_RETENTION"]
    assert (source["jsonData"]["organization"], source["jsonData"]["defaultBucket"]) == (organisation, bucket)


@pytest.mark.parametrize(("chosen", "database"), [("", "EGX_DW"), ("EGX_TRIAL", "EGX_TRIAL")])
def test_grafana_asks_the_database_that_the_warehouse_writes(chosen: str, database: str) -> None:
    given = environments({**AWS, "SNOWFLAKE_DATABASE": chosen})
    assert given["warehouse"]["SNOWFLAKE_DATABASE"] == database
    text = Template((compose.ROOT / "deploy/grafana/provisioning/datasources/egx.yaml").read_text())
    sources = yaml.safe_load(text.substitute(given["grafana"]))["datasources"]
    snowflake = next(source for source in sources if source["uid"] == "egx-snowflake")
    assert snowflake["jsonData"]["database"] == database


def test_it_has_the_whole_platform(services: dict[str, Any]) -> None:
    assert set(services) == set(SERVICES)
    assert set(compose.load(AWS)["services"]) == set(SERVICES) - {"s3"}
    assert set(compose.load({**AWS, "COMPOSE_PROFILES": "aws"})["services"]) == set(SERVICES) - {"s3", "kafka", "kafka-ui"}
    ports = {name: [int(p.split(":")[1]) for p in service["ports"]] for name, service in services.items() if "ports" in service}
    assert ports == {name: [port] for name, port in PORTS.items()}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_watched_bounded_pinned_and_closed(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert {"interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])
    assert service["restart"] == "unless-stopped"
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-ubuntu)?", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])


@pytest.mark.parametrize("name", OURS)
def test_our_services_write_only_where_a_volume_is(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    written = [
        value for key, value in compose.environment(service, LOCAL).items() if key.endswith(("__STATE", "__FOLDER", "EHOUSE"))
    ]
    assert written
    assert all(value.startswith("/var/lib/egx/") for value in written)
    assert service["volumes"] == ["state:/var/lib/egx", "./config.yaml:/srv/egx/config.yaml:ro"]


@pytest.mark.parametrize("name", ["kafka", "influxdb", "s3"])
def test_the_servers_are_of_the_versions_that_the_tests_run(services: dict[str, Any], name: str) -> None:
    assert services[name]["image"].rpartition(":")[2] == ARTEFACTS[name].version


def test_each_volume_is_named_and_used(services: dict[str, Any]) -> None:
    used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert {volume for volume in used if not volume.startswith("./")} == set(compose.load(LOCAL)["volumes"])
    for mounted in used - set(compose.load(LOCAL)["volumes"]):
        assert (compose.ROOT / mounted).exists(), mounted


def test_what_a_service_waits_for_is_there_and_has_a_health_check(services: dict[str, Any]) -> None:
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy"
            assert "healthcheck" in services[other]
            optional = set(services[other].get("profiles", [])) > set(service.get("profiles", []))
            assert how.get("required", True) is not optional


@pytest.mark.parametrize(
    ("variables", "name"),
    [(LOCAL, name) for name in ("INFLUXDB_TOKEN", "INFLUXDB_PASSWORD", "GRAFANA_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY")]
    + [(AWS, name) for name in ("EGX_BUCKET", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *SNOWFLAKE)],
)
def test_without_a_secret_nothing_starts_and_the_message_names_it(variables: dict[str, str], name: str) -> None:
    environments(variables)
    with pytest.raises(compose.Missing, match=f"set {name} in .env"):
        environments({**variables, name: ""})


def test_the_example_names_every_variable_and_holds_no_secret() -> None:
    text = (compose.ROOT / ".env.example").read_text()
    files = [compose.ROOT / "compose.yaml", *(compose.ROOT / "deploy" / "profiles").glob("*.env")]
    used = set().union(*(compose.variables_of(file.read_text()) for file in files))
    optional = {"EGX_VERSION", "GRAFANA_PLUGINS"}
    assert {name for name in used - optional if name not in text} == set()
    set_there = {name: value for name, value in EXAMPLE.items() if value}
    assert set_there == {"EGX_PROFILE": "local", "EGX_SOURCE": "egxpy", "COMPOSE_PROFILES": ",kafka", "ALERTS_BY": "email"}
    ignored = (compose.ROOT / ".gitignore").read_text().splitlines()
    assert ".env" in ignored


def test_no_secret_is_written_into_the_file() -> None:
    project = yaml.safe_load((compose.ROOT / "compose.yaml").read_text())
    for name, service in project["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"TOKEN|PASSWORD|SECRET|ACCESS_KEY", key):
                assert str(value).startswith("${"), f"{name}: {key}"

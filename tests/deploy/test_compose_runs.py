"""The services of compose.yaml run natively: each one's own command and environment, addresses and folders apart."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from tests.ci import in_ci
from tests.dataflows.jobs import ROOT, wait_for
from tests.deploy import compose
from tests.deploy.test_compose import AWS, LEGS, LOCAL
from tests.servers.fixtures import InfluxdbServer
from tests.servers.flux import rows
from tests.servers.influxdb import Influxdb
from tests.servers.kafka import Kafka
from tests.servers.legs import committed, ends
from tests.servers.process import free_port, write_private
from tests.servers.s3 import S3

HOME = "/var/lib/egx"
SYMBOLS = ("COMI", "ETEL")
# The program of InfluxDB's check comes with its image only.
CHECKED = [name for name, program in (("kafka", "bash"), ("s3", "wget")) if shutil.which(program) or in_ci()]
SMALL = {
    "EGX_SOURCE__SIMULATED__SPEED": "0",
    "EGX_SOURCE__SIMULATED__HISTORY_SESSIONS": "10",
    "EGX_SOURCE__SIMULATED__MINUTES": "30",
}


class ComposeKafka(Kafka):
    """A broker with the properties that the service's environment makes, as its image makes them."""

    def __init__(self, folder: Path, given: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._given = given

    def _prepare(self) -> None:
        super()._prepare()  # formats its folder
        addresses = {
            "0.0.0.0:9092": self.address,
            "kafka:9092": self.address,
            "0.0.0.0:29092": f"127.0.0.1:{free_port()}",
            "0.0.0.0:9093": f"127.0.0.1:{self.ports['controller']}",
            "localhost:9093": f"127.0.0.1:{self.ports['controller']}",
            "/var/lib/kafka/data": str(self.folder / "data"),
        }
        properties = {}
        for name, value in self._given.items():
            if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS":
                for theirs, ours in addresses.items():
                    value = value.replace(theirs, ours)
                properties[name.removeprefix("KAFKA_").lower().replace("_", ".")] = value
        write_private(self.folder / "server.properties", "".join(f"{key}={value}\n" for key, value in properties.items()))


class ComposeS3(S3):
    """A server started by the service's command, with the account of its environment."""

    def __init__(self, folder: Path, arguments: list[str], given: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._arguments, self._given = arguments, given

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        command, _ = super()._command()
        places = {"--port=:7070": f"--port={self.address}", "/data": command[-1]}
        return [command[0], *(places.get(argument, argument) for argument in self._arguments)], self._given


class ComposeInfluxdb(Influxdb):
    """A server set up by the service's environment, as its image does it."""

    def __init__(self, folder: Path, given: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._given = given

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        command, variables = super()._command()
        return command, {**variables, **{name: value for name, value in self._given.items() if name.startswith("INFLUXD_")}}

    def _setup(self) -> dict[str, str | int]:
        prefix = "DOCKER_INFLUXDB_INIT_"
        init = {name.removeprefix(prefix).lower(): value for name, value in self._given.items() if name.startswith(prefix)}
        assert init["mode"] == "setup"
        return {
            **{name: init[name] for name in ("username", "password", "org", "bucket")},
            "token": init["admin_token"],
            "retentionPeriodSeconds": int(init["retention"].removesuffix("d")) * 86_400,
        }


def image_files() -> list[str]:
    """What the Dockerfile copies of the project."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    _, after = text.split("WORKDIR /srv/egx\n")
    return [line.split()[1] for line in after.splitlines() if line.startswith("COPY ")]


class Started:
    """Compose's servers, running, and how to run one of its services of ours."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        names = ("INFLUXDB_TOKEN", "INFLUXDB_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY")
        self.chosen = {"EGX_SOURCE": "simulated", **{name: secrets.token_urlsafe(24) for name in names}}
        self.variables = {**LOCAL, **self.chosen}
        """Those of .env."""
        self._services: dict[str, Any] = compose.load(self.variables)["services"]
        given = {name: compose.environment(self._services[name], self.variables) for name in ("kafka", "s3", "influxdb")}
        self.kafka = ComposeKafka(folder / "kafka", given["kafka"])
        self.s3 = ComposeS3(folder / "s3", self._services["s3"]["command"], given["s3"])
        self.influxdb = ComposeInfluxdb(folder / "influxdb", given["influxdb"])
        for server in (self.kafka, self.s3, self.influxdb):
            stack.callback(server.remove)
            server.start()
        self._places = {
            "kafka:9092": self.kafka.address,
            "http://influxdb:8086": self.influxdb.url,
            "http://s3:7070": self.s3.url,
            "/dev/tcp/127.0.0.1/9092": f"/dev/tcp/{self.kafka.address.replace(':', '/')}",
            "http://127.0.0.1:7070": self.s3.url,
            HOME: str(folder / "state"),
        }
        self.project = folder / "srv"
        """The project as the image has it, under what is mounted over it."""
        (folder / "home").mkdir()
        for name in image_files():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.project / name, ignore=shutil.ignore_patterns("__pycache__", ".cache", "logs"))
            else:
                self.project.mkdir(exist_ok=True)
                shutil.copy(ROOT / name, self.project / name)
        mounted = next(volume for volume in self._services["ingest"]["volumes"] if volume.startswith("./"))
        source, target, _ = mounted.split(":")
        config = yaml.safe_load((ROOT / source).read_text())
        config["source"]["symbols"] = list(SYMBOLS)
        (self.project / Path(target).relative_to("/srv/egx")).write_text(yaml.safe_dump(config))

    def _placed(self, value: str) -> str:
        for theirs, ours in self._places.items():
            value = value.replace(theirs, ours)
        return value

    def environment(self, name: str, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """A service's environment, with other variables in .env than usual."""
        variables = variables or self.variables
        inherited = {key: value for key, value in os.environ.items() if not re.match("EGX_|AWS_|SNOWFLAKE_", key)}
        given = compose.environment(compose.load(variables)["services"][name], variables)
        image = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(self.folder / "home")}
        return {**inherited, **image, **{key: self._placed(value) for key, value in given.items()}, **SMALL}

    def health(self, name: str) -> int:
        """The status with which a service's health check ends."""
        kind, program, *arguments = self._services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        command = [sys.executable if program == "python" else program, *map(self._placed, arguments)]
        return subprocess.run(command, cwd=self.project, env=self.environment(name), check=False, timeout=60).returncode

    def start(self, name: str, *more: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((self.folder / f"{name}.log").open("wb"))
        command = [sys.executable, *self._services[name]["command"][1:], *more]
        process = subprocess.Popen(command, cwd=self.project, env=env or self.environment(name), stdout=log, stderr=log)
        self._stack.callback(process.kill)
        return process

    def archived(self, bucket: str) -> list[str]:
        """The records of a bucket."""
        objects = (self.s3.folder / "data" / bucket / "streaming").rglob("*.json")
        return sorted(line for path in objects for line in path.read_text().splitlines())


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    with ExitStack() as stack:
        yield Started(tmp_path, stack)


@pytest.mark.servers("kafka", "s3", "influxdb")
def test_the_services_work_together(started: Started) -> None:
    run, kafka = started, started.kafka.address
    init = compose.environment(compose.load(run.variables)["services"]["influxdb"], run.variables)
    bucket, org = init["DOCKER_INFLUXDB_INIT_BUCKET"], init["DOCKER_INFLUXDB_INIT_ORG"]
    influxdb = InfluxdbServer(run.influxdb.url, run.variables["INFLUXDB_TOKEN"], org)
    processes = {leg: run.start(leg) for leg in LEGS}

    def logs() -> str:
        return "".join(f"--- {leg}\n{(run.folder / f'{leg}.log').read_text()[-1500:]}" for leg in processes)

    def caught_up() -> bool:
        for leg, process in processes.items():
            assert process.poll() is None, f"{leg} ended\n{logs()}"
        there = ends(kafka, "egx_market_data")
        return sum(there.values()) > 50 and all(
            committed(kafka, group, "egx_market_data") == there for group in ("egx-influxdb-writer", "egx-s3-writer")
        )

    wait_for(lambda: all((run.folder / "state/status" / f"{leg}.json").exists() for leg in LEGS), "all legs to report", 90)
    wait_for(caught_up, "both groups to have committed everything", 90)
    assert [run.health(leg) for leg in LEGS] == [0, 0, 0]
    assert [run.health(server) for server in CHECKED] == [0] * len(CHECKED)

    found = rows(influxdb, f'from(bucket: "{bucket}") |> range(start: -30d) |> filter(fn: (r) => r._field == "close")')
    assert {row["symbol"] for row in found} == set(SYMBOLS)
    pipeline = f'from(bucket: "{bucket}") |> range(start: -1h) |> filter(fn: (r) => r._measurement == "pipeline")'
    assert {row["leg"] for row in rows(influxdb, pipeline)} == set(LEGS)
    assert run.archived("egx-data-bucket")

    lines = [json.loads(line) for line in (run.folder / "live.log").read_text().splitlines()]
    assert all(line["leg"] == "live" for line in lines)

    before = {path: path.stat().st_mtime_ns for path in run.project.rglob("*")}
    warehouse = run.start("warehouse")
    told = run.folder / "warehouse.log"
    wait_for(lambda: re.search(r"the next warehouse run is at|run failed", told.read_text()) is not None, "the warehouse", 240)
    assert "run failed" not in told.read_text(), told.read_text()[-3000:]
    assert run.health("warehouse") == 0
    warehouse.terminate()
    assert warehouse.wait(60) == 0
    snapshot = str(run.folder / "state/warehouse/gold/vw_gold_market_snapshot.parquet")
    assert {symbol for (symbol,) in duckdb.execute("SELECT symbol FROM read_parquet(?)", [snapshot]).fetchall()} == set(SYMBOLS)
    assert {path: path.stat().st_mtime_ns for path in run.project.rglob("*")} == before, "the image's files are read-only"
    outcomes = f'from(bucket: "{bucket}") |> range(start: -1h) |> filter(fn: (r) => r._measurement == "warehouse")'
    assert {row["_field"]: row["_value"] for row in rows(influxdb, outcomes)}["ok"] == 1
    status = subprocess.run(
        [sys.executable, "-m", "dataflows.status", "--json"],
        cwd=run.project,
        env=run.environment("ingest"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(status.stdout)["quality"], "`docker compose exec ingest python -m dataflows.status` sees gold"

    for leg, process in processes.items():
        process.terminate()
        assert process.wait(60) == 0, f"{leg}\n{logs()}"
    assert [run.health(leg) for leg in LEGS] == [1, 1, 1], "a leg that has ended is not healthy"

    # AWS by boto3's own variable for a server other than AWS's; a group of its own, so that it reads the topic again.
    aws = {
        **AWS,
        **run.chosen,
        "EGX_BUCKET": "an-aws-bucket",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": run.variables["S3_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": run.variables["S3_SECRET_KEY"],
    }
    apart = {"AWS_ENDPOINT_URL_S3": run.s3.url, "EGX_ARCHIVE__GROUP": "aws"}
    processes = {"archive": run.start("archive", "-s", "1", env={**run.environment("archive", aws), **apart})}
    wait_for(lambda: committed(kafka, "aws", "egx_market_data") == ends(kafka, "egx_market_data"), "AWS's archive", 60)
    processes["archive"].terminate()
    assert processes["archive"].wait(60) == 0, logs()
    assert run.archived("an-aws-bucket") == run.archived("egx-data-bucket")

    for server in (run.kafka, run.s3):
        server.kill()
    assert 0 not in [run.health(server) for server in CHECKED], "a server that is down is not healthy"


def settings_of(service: dict[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """What `python -m dataflows.settings` says in a service's environment."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("EGX_")}
    done = subprocess.run(
        [sys.executable, "-m", "dataflows.settings"],
        env={**inherited, **compose.environment(service, variables)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


@pytest.mark.parametrize("variables", [LOCAL, {**AWS, "EGX_STATE_POSTGRES": "given", "EGX_CRON": "given"}], ids=["local", "aws"])
def test_every_setting_of_a_service_is_one_that_there_is(variables: dict[str, str]) -> None:
    services = compose.load(variables)["services"]
    for name in (*LEGS, "warehouse"):
        settings = settings_of(services[name], variables)
        kafka = settings["kafka"]
        assert (kafka["bootstrap_servers"], kafka["username"], kafka["password"]) == ("kafka:9092", None, None)
        assert settings["archive"]["url"] == f"s3://{variables['EGX_BUCKET'] or 'egx-data-bucket'}/streaming/"
        gateway = compose.environment(services[name], variables).get("WAREHOUSE_GATEWAY")
        assert gateway == ("snowflake" if variables["EGX_PROFILE"] == "aws" else None)


def test_a_broker_and_logins_of_one_s_own_come_from_the_environment() -> None:
    variables = {
        **LOCAL,
        "EGX_KAFKA__BOOTSTRAP_SERVERS": "broker.example:9093",
        "EGX_KAFKA__USERNAME": "reader",
        "EGX_KAFKA__PASSWORD": "given",
        "EGX_SOURCE__EGXPY__USERNAME": "me",
        "EGX_SOURCE__EGXPY__PASSWORD": "given",
    }
    services = compose.load(variables)["services"]
    for name in LEGS:
        kafka = settings_of(services[name], variables)["kafka"]
        assert (kafka["bootstrap_servers"], kafka["username"]) == ("broker.example:9093", "reader")
        assert kafka["password"] == "**********"
    egxpy = settings_of(services["ingest"], variables)["source"]["egxpy"]
    assert (egxpy["username"], egxpy["password"]) == ("me", "**********")

"""The services of compose.yaml run natively: each one's own command and environment, addresses and folders apart."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from tests.dataflows.jobs import ROOT, wait_for
from tests.deploy import compose
from tests.deploy.test_compose import AWS, LEGS, LOCAL
from tests.servers.fixtures import InfluxdbServer
from tests.servers.flux import rows
from tests.servers.kafka import Kafka
from tests.servers.legs import committed, ends
from tests.servers.process import free_port, write_private
from tests.servers.s3 import S3

HOME = "/var/lib/egx"
SYMBOLS = ("COMI", "ETEL")
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
    """A server started by the service's command."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        super().__init__(folder)
        self._arguments = arguments

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        command, variables = super()._command()
        places = {"--port=:7070": f"--port={self.address}", "/data": command[-1]}
        return [command[0], *(places.get(argument, argument) for argument in self._arguments)], variables


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose.load({**LOCAL, "EGX_SOURCE": "simulated"})["services"]
    return found


def image_files() -> list[str]:
    """What the Dockerfile copies of the project."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    _, after = text.split("WORKDIR /srv/egx\n")
    return [line.split()[1] for line in after.splitlines() if line.startswith("COPY ")]


class Started:
    """The legs' processes, and how to run another service's command."""

    def __init__(self, services: dict[str, Any], place: Callable[[str], str], folder: Path, stack: ExitStack) -> None:
        self._services, self._place, self.folder, self._stack = services, place, folder, stack
        self.project = folder / "srv"
        """The project as the image has it, under what is mounted over it."""
        (folder / "home").mkdir()
        for name in image_files():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.project / name, ignore=shutil.ignore_patterns("__pycache__", ".cache", "logs"))
            else:
                self.project.mkdir(exist_ok=True)
                shutil.copy(ROOT / name, self.project / name)
        mounted = next(volume for volume in services["ingest"]["volumes"] if volume.startswith("./"))
        source, target, _ = mounted.split(":")
        config = yaml.safe_load((ROOT / source).read_text())
        config["source"]["symbols"] = list(SYMBOLS)
        (self.project / Path(target).relative_to("/srv/egx")).write_text(yaml.safe_dump(config))

    def environment(self, name: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not re.match("EGX_|AWS_|SNOWFLAKE_", key)}
        given = compose.environment(self._services[name], LOCAL)
        image = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(self.folder / "home")}
        return {**inherited, **image, **{key: self._place(value) for key, value in given.items()}, **SMALL}

    def command(self, name: str) -> list[str]:
        return [sys.executable, *self._services[name]["command"][1:]]

    def health(self, name: str) -> int:
        test = self._services[name]["healthcheck"]["test"]
        assert test[:2] == ["CMD", "python"]
        command = [sys.executable, *test[2:]]
        return subprocess.run(command, cwd=self.project, env=self.environment(name), check=False, timeout=60).returncode

    def start(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((self.folder / f"{name}.log").open("wb"))
        command = [*self.command(name), *more]
        process = subprocess.Popen(command, cwd=self.project, env=self.environment(name), stdout=log, stderr=log)
        self._stack.callback(process.kill)
        return process


@pytest.fixture
def started(
    services: dict[str, Any], tmp_path: Path, influxdb: InfluxdbServer, unique_name: str
) -> Iterator[tuple[Started, str, S3]]:
    with ExitStack() as stack:
        kafka = ComposeKafka(tmp_path / "kafka", compose.environment(services["kafka"], LOCAL))
        s3 = ComposeS3(tmp_path / "s3", services["s3"]["command"])
        for server in (kafka, s3):
            stack.callback(server.remove)
            server.start()
        places = {
            "kafka:9092": kafka.address,
            "http://influxdb:8086": influxdb.url,
            "http://s3:7070": s3.url,
            HOME: str(tmp_path / "state"),
        }
        secrets = {
            "INFLUXDB_TOKEN": influxdb.token,
            "S3_ACCESS_KEY": s3.secrets["access_key"],
            "S3_SECRET_KEY": s3.secrets["secret_key"],
        }

        def place(value: str) -> str:
            for theirs, ours in places.items():
                value = value.replace(theirs, ours)
            return value

        variables = {**LOCAL, "EGX_SOURCE": "simulated", **secrets}
        legs = compose.load(variables)["services"]
        for leg in legs.values():
            leg.setdefault("environment", {})["EGX_INFLUXDB__BUCKET"] = unique_name
            leg["environment"]["EGX_INFLUXDB__ORG"] = influxdb.org
        run = Started(legs, place, tmp_path, stack)
        original = run.environment

        def environment(name: str) -> dict[str, str]:
            keys = {"AWS_ACCESS_KEY_ID": secrets["S3_ACCESS_KEY"], "AWS_SECRET_ACCESS_KEY": secrets["S3_SECRET_KEY"]}
            return {**original(name), **keys}

        run.environment = environment  # type: ignore[method-assign]
        yield run, kafka.address, s3


@pytest.mark.servers("kafka", "s3")
def test_the_services_work_together(started: tuple[Started, str, S3], influxdb: InfluxdbServer, unique_name: str) -> None:
    run, kafka, s3 = started
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

    found = rows(influxdb, f'from(bucket: "{unique_name}") |> range(start: -30d) |> filter(fn: (r) => r._field == "close")')
    assert {row["symbol"] for row in found} == set(SYMBOLS)
    pipeline = f'from(bucket: "{unique_name}") |> range(start: -1h) |> filter(fn: (r) => r._measurement == "pipeline")'
    assert {row["leg"] for row in rows(influxdb, pipeline)} == set(LEGS)
    assert list((s3.folder / "data" / "egx-data-bucket" / "streaming").rglob("*.json"))

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
    outcomes = f'from(bucket: "{unique_name}") |> range(start: -1h) |> filter(fn: (r) => r._measurement == "warehouse")'
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
        kafka = settings_of(services[name], variables)["kafka"]
        assert (kafka["bootstrap_servers"], kafka["username"], kafka["password"]) == ("kafka:9092", None, None)


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

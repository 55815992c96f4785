"""The DAGs in a real Airflow, which `just airflow` installs into an environment of its own (AIRFLOW_PYTHON names another)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ci import in_ci
from tests.dataflows.jobs import ROOT, Folder

PYTHON = Path(os.environ.get("AIRFLOW_PYTHON") or ROOT / ".cache" / "airflow" / "bin" / "python")
pytestmark = pytest.mark.skipif(not PYTHON.exists() and not in_ci(), reason="no Airflow: `just airflow` installs it")


class Airflow:
    """An Airflow with a home and a database of its own, whose DAGs run the project over a folder."""

    def __init__(self, path: Path) -> None:
        source = {"symbols": ["COMI"], "simulated": {"speed": 0, "history_sessions": 5, "minutes": 5}}
        self.folder = Folder(path, source=source)
        self.environment = self.folder.environment(
            AIRFLOW_HOME=str(path / "airflow"),
            AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "deploy" / "airflow"),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__CORE__UNIT_TEST_MODE="False",
            PLATFORM_PYTHON=sys.executable,
            EGX_WAREHOUSE=str(path / "warehouse"),
        )
        done = self.run("db", "migrate")
        assert done.returncode == 0, done.stderr

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(PYTHON), "-m", "airflow", *arguments]
        return subprocess.run(
            command, cwd=self.folder.path, env=self.environment, capture_output=True, text=True, check=False, timeout=240
        )


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    return Airflow(tmp_path_factory.mktemp("airflow"))


TASKS = """
import sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
for name in sorted(bag.dags):
    tasks = sorted((task.task_id, (task.env or {}).get("EGX_METRICS__PORT", "")) for task in bag.dags[name].tasks)
    print(name, bag.dags[name].schedule, *(word for task in tasks for word in task if word))
"""


@pytest.mark.parametrize(
    ("given", "streaming"),
    [
        ({}, "main"),
        ({"EGX_KAFKA__BOOTSTRAP_SERVERS": "broker:9092"}, "archive ingest live"),
        (
            {"EGX_KAFKA__BOOTSTRAP_SERVERS": "broker:9092", "EGX_METRICS__PORT": "9100"},
            "archive 9102 ingest 9100 live 9101",
        ),
    ],
    ids=["embedded", "broker", "broker and Prometheus"],
)
def test_both_load_without_an_error_with_a_task_for_each_process_and_a_port_of_its_own(
    airflow: Airflow, given: dict[str, str], streaming: str
) -> None:
    done = subprocess.run(
        [str(PYTHON), "-c", TASKS, str(ROOT / "deploy" / "airflow")],
        env={**airflow.environment, **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("egx_")]
    assert lines == [f"egx_streaming @continuous {streaming}", "egx_warehouse 0 2 * * * run snapshot"]


def test_both_run_to_success_over_the_embedded_defaults(airflow: Airflow) -> None:
    done = airflow.run("dags", "test", "egx_streaming")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert airflow.folder.count_live() > 5
    done = airflow.run("dags", "test", "egx_warehouse")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (airflow.folder.path / "warehouse" / "gold" / "vw_gold_market_snapshot.parquet").exists()

"""That the benchmarks run; what they measure here, beside other tests, says nothing."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench import results
from bench.place import Row
from tests.dataflows.jobs import ROOT

WORK = ("live", "archive", "ingest", "latency", "scaling", "start", "idle", "growth")


@pytest.mark.servers("kafka", "influxdb", "s3")
def test_every_case_runs() -> None:
    command = [sys.executable, "-m", "bench", "--quick"]  # a minute; ten are for what hangs
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    measured = {line.split("│")[1].strip() for line in ended.stdout.splitlines() if line.startswith("│")}
    assert measured == set(WORK)


@pytest.mark.servers  # dbt-duckdb, which is installed in an environment of its own
def test_the_warehouse_is_measured_beside_dbt_which_makes_the_same_rows() -> None:
    command = [sys.executable, "-m", "bench.warehouse", "--quick"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    small, *_, objects = ended.stdout.splitlines()
    assert set(json.loads(small.removeprefix("small: "))) >= {"one day, ratio to dbt", "cold build, ratio to dbt"}
    assert "objects/s" in objects


def test_a_report_shows_the_newest_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    row = Row("live", "CPU a bar", 4.567, "us", 15.0, 0.3045, "<= 5 us", True)
    newest = results.Results(dt.datetime.now(dt.UTC), "2 cores", "1a2b3c4", 0.25, 600_000, 5, 61.0, [row], True)
    older = msgspec.structs.replace(newest, at=newest.at - dt.timedelta(days=1), rows=[])
    partial = msgspec.structs.replace(newest, at=newest.at + dt.timedelta(days=1), rows=[], complete=False)
    for found in (newest, older, partial):
        results.write(found)
    assert results.markdown().splitlines()[-1] == "| live | CPU a bar | 4.57 us | 15 us | 0.30 | <= 5 us | yes |"

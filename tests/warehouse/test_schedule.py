"""When the warehouse runs, what happens when it fails, and what a health check sees."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmesh import Context

from dataflows.bar import CAIRO
from dataflows.calendar import egx
from dataflows.gold import Schedule
from dataflows.settings import S3, Archive, InfluxDB, Settings, load
from tests.dataflows.jobs import ROOT, Folder, wait_for
from warehouse import run, schedule
from warehouse.environment import environment
from warehouse.schedule import Runner, next_run


def cairo(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=CAIRO).astimezone(dt.UTC)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("2025-12-07T01:59", "2025-12-07T02:00"),
        ("2025-12-07T02:00", "2025-12-07T15:00"),  # a session of 10:00 to 14:30
        ("2025-12-07T15:00", "2025-12-08T02:00"),
        ("2025-12-04T16:00", "2025-12-05T02:00"),  # Friday has no session
        ("2025-12-05T02:00", "2025-12-06T02:00"),
        ("2025-03-10T03:00", "2025-03-10T14:00"),  # Ramadan closes at 13:30
        ("2025-04-24T23:00", "2025-04-25T02:00"),  # the night in which summer time begins
    ],
)
def test_it_runs_at_two_in_the_night_and_after_the_close_by_cairo_s_clock(after: str, expected: str) -> None:
    assert next_run(cairo(after), egx()) == cairo(expected)


@pytest.mark.parametrize(
    "day", ["2026-01-15", "2026-07-15"]
)  # in winter 02:00 is 00:00 UTC, in summer 23:00 UTC of the day before
def test_nothing_runs_before_two_in_the_night_and_at_two_it_does(place: Path, monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    """Neither the schedule nor, with EGX_CRON, plain `sqlmesh run`: what a model loads ends at its cron's last tick."""
    before, two = cairo(f"{day}T01:59"), cairo(f"{day}T02:00")
    assert next_run(before, egx()) == two
    assert next_run(two, egx()) > two
    monkeypatch.setenv("EGX_CRON", "0 2 * * *")
    monkeypatch.setenv("EGX_WAREHOUSE_ARCHIVE", str(place))
    context = Context(paths=str(ROOT / "warehouse"))
    for model in context.models.values():
        if not model.is_seed:
            assert model.cron_floor(before) == two - dt.timedelta(days=1), model.name
            assert model.cron_floor(two) == two, model.name
    context.close()


@given(st.integers(1_640_995_200, 1_798_675_200))  # 2022 to 2026
def test_there_is_always_a_next_run_within_a_day_and_an_hour(seconds: int) -> None:
    after = dt.datetime.fromtimestamp(seconds, dt.UTC)
    assert dt.timedelta() < next_run(after, egx()) - after <= dt.timedelta(hours=25)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EGX_WAREHOUSE", str(tmp_path))
    return tmp_path


def settings(url: str = "data/archive/streaming/", s3: S3 | None = None) -> Settings:
    Settings.file = Path("/somewhere/config.yaml")
    return Settings(archive=Archive(url=url, s3=s3 or S3()), influxdb=InfluxDB())


def test_the_warehouse_gets_the_archive_that_the_stream_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EGX_WAREHOUSE_ARCHIVE", raising=False)
    assert environment(settings())["EGX_WAREHOUSE_ARCHIVE"] == "/somewhere/data/archive"
    found = environment(settings("s3://bucket/streaming/", S3(endpoint_url="http://s3:7070", region="eu-south-1")))
    assert found["EGX_WAREHOUSE_ARCHIVE"] == "s3://bucket"
    assert (found["AWS_ENDPOINT_URL_S3"], found["AWS_REGION"]) == ("http://s3:7070", "eu-south-1")
    monkeypatch.setenv("EGX_WAREHOUSE_ARCHIVE", "/elsewhere")
    assert environment(settings())["EGX_WAREHOUSE_ARCHIVE"] == "/elsewhere"


def test_a_run_and_a_plan_by_hand_read_the_archive_of_config_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = Folder(tmp_path, archive={"url": "bars/streaming/"}).environment(EGX_WAREHOUSE_ARCHIVE="")
    show = "import os; print(os.environ['EGX_WAREHOUSE_ARCHIVE'])"
    command = [sys.executable, "-m", "warehouse.environment", sys.executable, "-c", show]
    shown = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60)
    assert shown.stdout.strip() == str(tmp_path / "bars"), shown.stderr
    (plan,) = [line for line in (ROOT / "justfile").read_text().splitlines() if "sqlmesh -p warehouse plan" in line]
    assert plan.strip().startswith("{{py}} -m warehouse.environment {{venv}}/bin/sqlmesh")

    read = []
    for name in ("EGX_CONFIG", "EGX_WAREHOUSE_ARCHIVE"):
        monkeypatch.setenv(name, variables[name])

    class Reading:
        def __init__(self, **_: object) -> None:
            read.append(os.environ["EGX_WAREHOUSE_ARCHIVE"])

        def close(self) -> None: ...

    monkeypatch.setattr(run, "Context", Reading)
    monkeypatch.setattr(run, "publish_missing", lambda _: None)
    monkeypatch.setattr(run, "run", lambda *_: True)
    monkeypatch.setattr(run, "configure_console", lambda **_: None)
    monkeypatch.setattr(sys, "argv", ["run"])
    load.cache_clear()
    try:
        assert run.main() == 0
    finally:
        load.cache_clear()
    assert read == [str(tmp_path / "bars")]


def runs(place: Path, fail: int) -> tuple[Schedule, int]:
    """A command that fails so many times, and how often it ran."""
    counter = place / "count"
    code = f"import pathlib, sys; p = pathlib.Path({str(counter)!r}); n = len(p.read_text()) if p.exists() else 0"
    code += f"; p.write_text('x' * (n + 1)); sys.exit(n < {fail})"
    state = Runner(settings(), threading.Event(), [sys.executable, "-c", code], retry_seconds=0).run()
    return state, len(counter.read_text())


@pytest.mark.parametrize(("fail", "ok", "times"), [(0, True, 1), (2, True, 3), (9, False, 3)])
def test_a_failed_run_is_tried_again_twice(place: Path, fail: int, ok: bool, times: int) -> None:
    state, ran = runs(place, fail)
    assert (state.ok, ran) == (ok, times)


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_run_prints_has_the_form_of_the_log(place: Path, form: str) -> None:
    prints = [sys.executable, "-c", "import sys; print('plain: ü'); print(); print('worse', file=sys.stderr)"]
    code = f"""
import threading
from dataflows import logs
from dataflows.settings import load
from warehouse.schedule import Runner
logs.configure({form!r}, ("warehouse",))
assert Runner(load(), threading.Event(), {prints!r}).run().ok
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    if form == "json":
        assert done.stdout == ""
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        assert {line["leg"] for line in lines} == {"warehouse"}
        assert {"plain: ü", "worse"} < {line["event"] for line in lines}
        assert "" not in {line["event"] for line in lines}
    else:
        assert done.stdout == "plain: ü\n\n"
        assert done.stderr.startswith("worse\negx: the warehouse is up to date, after ")


def test_asked_to_end_it_ends_the_run_and_does_not_try_again() -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    state = Runner(settings(), stop, [sys.executable, "-c", "import time; time.sleep(600)"]).run()
    assert state.ok is False
    assert state.seconds is not None
    assert state.seconds < 60


def test_a_health_check_sees_a_run_that_is_due_failed_or_missed(place: Path) -> None:
    now = cairo("2025-12-07T12:00")
    assert schedule.failing(now) == f"the schedule has never run: there is no {place / 'schedule.json'}"
    schedule.write_schedule(Schedule(next_run(now, egx()), now, 5.0, True))
    assert schedule.failing(now) is None
    schedule.write_schedule(Schedule(next_run(now, egx()), now, 5.0, False))
    assert schedule.failing(now) == "the last warehouse run failed: its log says why"
    schedule.write_schedule(Schedule(cairo("2025-12-06T02:00"), now, 5.0, True))
    assert schedule.failing(now) == ("the warehouse run of 2025-12-06 00:00 UTC has not taken place: start the schedule again")


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (None, None),
        (Schedule(cairo("2025-12-06T02:00"), cairo("2025-12-05T02:01"), 5.0, True), None),
        (
            Schedule(cairo("2025-12-06T02:00"), cairo("2025-12-05T02:01"), 5.0, False),
            "the last warehouse run failed: its log says why",
        ),
    ],
    ids=["never run", "well", "failed"],
)
def test_started_again_it_is_as_healthy_as_its_last_run_was(before: Schedule | None, why: str | None) -> None:
    if before:
        schedule.write_schedule(before)
    assert failing_during_a_first_run() == [why]


def test_a_broken_state_file_is_not_healthy_and_a_new_start_writes_it_anew() -> None:
    file = schedule.schedule_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"next_at": "2025-12')
    why = schedule.failing(cairo("2025-12-06T02:00"))
    assert why is not None
    assert f"{file} cannot be read" in why
    assert "start the schedule again" in why
    assert failing_during_a_first_run() == [None]


def failing_during_a_first_run() -> list[str | None]:
    """Starts the schedule, asks within its first run, and stops it."""
    stop, seen = threading.Event(), []

    class Running(Runner):
        def run(self) -> Schedule:
            seen.append(schedule.failing(dt.datetime.now(dt.UTC)))
            stop.set()
            return Schedule(dt.datetime.now(dt.UTC))

    schedule.keep_running(Running(settings(), stop, []), stop, settings())
    return seen


def test_started_it_brings_gold_up_to_date_at_once_and_ends_cleanly_when_asked(tmp_path: Path) -> None:
    folder = Folder(tmp_path, source={"symbols": ["COMI"], "simulated": {"speed": 0, "history_sessions": 5, "minutes": 5}})
    assert folder.run("main").process.returncode == 0
    warehouse = tmp_path / "warehouse"
    variables = folder.environment(EGX_WAREHOUSE=str(warehouse))
    process = subprocess.Popen(
        [sys.executable, "-m", "warehouse.schedule"], cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True
    )
    try:
        state = warehouse / "schedule.json"
        wait_for(lambda: state.exists() and json.loads(state.read_text())["ok"] is True, "a run", 120)
        assert (warehouse / "gold" / "vw_gold_market_snapshot.parquet").exists()
        healthy = [sys.executable, "-m", "warehouse.schedule", "--healthy"]
        assert subprocess.run(healthy, cwd=ROOT, env=variables, check=False, timeout=60).returncode == 0
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=30)[1]
        assert process.returncode == 0, errors
        assert "the next warehouse run is at" in errors
    finally:
        process.kill()

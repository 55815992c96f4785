"""What the legs say of themselves while they run: to Prometheus, to InfluxDB, in their file, and in their log."""

from __future__ import annotations

import datetime as dt
import json
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from connectors.kafka import InProcessBroker, Record, Writer
from dataflows.metrics import Metrics, percentile
from dataflows.reports import Report, read_reports
from tests.dataflows.bars import message
from tests.dataflows.jobs import Folder, Job, minute_bars, write_csv
from tests.servers.fixtures import InfluxdbServer
from tests.servers.flux import rows

BARS = minute_bars(("COMI", "ETEL", "SWDY"), 200)
REPLAY: dict[str, Any] = {"kind": "replay", "follow": True, "replay": {"path": "bars.csv"}}
LEGS = ("ingest", "live", "archive")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def folder_with_bars(path: Path, **settings: Any) -> Folder:
    write_csv(path / "bars.csv", BARS)
    return Folder(path, source=REPLAY, **settings)


def report(folder: Folder) -> Report:
    return read_reports(folder.path / "data/status")[0]


def scrape(port: int) -> dict[str, Metric]:
    text = urllib3.PoolManager(retries=False).request("GET", f"http://127.0.0.1:{port}/metrics").data.decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(metrics: dict[str, Metric], name: str, suffix: str = "") -> dict[str, float]:
    """Leg -> value."""
    return {sample.labels["leg"]: sample.value for sample in metrics[name].samples if sample.name == name + suffix}


class Ahead:
    """An output whose calls return while two of them are under way."""

    def __init__(self) -> None:
        self.calls_underway = 0

    def build_part(self) -> Ahead:
        return self

    def write_batch(self, values: list[list[dt.datetime]]) -> None:
        self.calls_underway = min(2, self.calls_underway + 1)

    def snapshot(self) -> None:
        self.calls_underway = 0


def test_a_write_is_measured_until_it_is_durable_not_until_its_call_returns() -> None:
    metrics = Metrics(["live"])
    output = metrics.sink("live", Ahead(), min).build_part()
    observed: list[tuple[str, float]] = []
    metrics.legs["live"].observe = lambda key, value: observed.append((key, value))  # type: ignore[method-assign]
    began = dt.datetime.now(dt.UTC)
    for seconds, records in ((4, 1), (3, 2), (2, 3)):
        output.write_batch([[began - dt.timedelta(seconds=seconds)] * records])
    assert [(key, round(value, 1)) for key, value in observed] == [("write", 0), ("batch", 1), ("latency", 4)]
    observed.clear()
    time.sleep(0.2)
    output.snapshot()
    assert [round(value) for key, value in observed if key != "write"] == [2, 3, 3, 2]
    assert all(value >= 0.2 for key, value in observed if key == "write")


def all_written(folder: Folder, job: Job) -> None:
    counts = {"live": len(BARS), "archived": len(BARS)}
    job.wait_for(lambda: counts.items() <= job.counts.items(), f"{len(BARS)} bars in both stores")


class Ran(NamedTuple):
    """A run of the main job: what it said of itself when all was written, and at its end."""

    metrics: dict[str, Metric]
    running: Report
    last: Report
    pid: int


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    port = free_port()
    folder = folder_with_bars(tmp_path_factory.mktemp("ran"), metrics={"port": port, "seconds": 0.1})
    with folder.start("main", "-s", "1") as job:
        all_written(folder, job)
        job.wait_for(lambda: report(folder).figures["archive"].last_commit_at is not None, "a report of the commit")
        metrics, running = scrape(port), report(folder)
        assert job.end() == 0
    return Ran(metrics, running, report(folder), job.process.pid)


def test_prometheus_gets_every_leg_s_figures_while_it_runs(ran: Ran) -> None:
    metrics = ran.metrics
    written = dict.fromkeys(LEGS, float(len(BARS)))
    assert values(metrics, "egx_records_read", "_total") == written
    assert values(metrics, "egx_records_written", "_total") == written
    assert values(metrics, "egx_records_rejected", "_total") == dict.fromkeys(LEGS, 0.0)
    assert values(metrics, "egx_write_retries", "_total") == dict.fromkeys(LEGS, 0.0)
    assert values(metrics, "egx_consumer_lag_records") == {"live": 0, "archive": 0}
    assert values(metrics, "egx_write_batch_records", "_sum") == written
    assert all(count > 0 for count in values(metrics, "egx_write_duration_seconds", "_count").values())
    latency = values(metrics, "egx_end_to_end_latency_seconds", "_sum")
    assert 0 < latency["live"] < 60
    assert 0 < latency["archive"] < 60
    assert set(values(metrics, "egx_last_commit_timestamp_seconds")) == {"live", "archive"}
    assert metrics["process_resident_memory_bytes"].samples[0].value > 0


def test_the_names_keep_to_prometheus_conventions(ran: Ran) -> None:
    ours = {name: family for name, family in ran.metrics.items() if name.startswith("egx_")}
    assert len(ours) == 14
    for name, family in ours.items():
        assert re.fullmatch(r"egx_[a-z_]+", name)
        assert family.documentation
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        else:
            assert name.endswith(("_seconds", "_records")), name


def test_the_file_says_what_was_done_and_that_it_ended_well(ran: Ran) -> None:
    assert not ran.running.ended
    last = ran.last
    assert (last.legs, last.pid, last.ended, last.error) == (LEGS, ran.pid, True, None)
    assert {leg: figures.written for leg, figures in last.figures.items()} == dict.fromkeys(LEGS, len(BARS))
    for leg in ("live", "archive"):
        figures = last.figures[leg]
        assert figures.latency_p50_seconds is not None
        assert figures.latency_p99_seconds is not None
        assert 0 < figures.latency_p50_seconds <= figures.latency_p99_seconds < 60
        assert figures.last_commit_at is not None
        assert last.started_at < figures.last_commit_at <= last.updated_at


def test_a_port_that_is_taken_ends_the_process_with_what_to_do(tmp_path: Path) -> None:
    folder = folder_with_bars(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        folder.configure(source=REPLAY, metrics={"port": port})
        line = folder.run("main").failed_with()
    assert line == (
        f"egx: metrics.port {port} is taken on 127.0.0.1: give each process a port of its own (EGX_METRICS__PORT), or none"
    )


def test_the_file_says_why_a_process_failed(tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text("symbol,interval,datetime,open,high,low,close,volume\nCOMI,Daily,never,1,1,1,1,1\n")
    folder = Folder(tmp_path, source=REPLAY)
    line = folder.run("main").failed_with()
    assert report(folder).ended
    assert f"egx: {report(folder).error}" == line


def test_influxdb_gets_a_point_a_leg_in_the_measurement_pipeline(
    tmp_path: Path, influxdb: InfluxdbServer, unique_name: str
) -> None:
    server = {"url": influxdb.url, "org": influxdb.org, "bucket": unique_name}
    folder = folder_with_bars(tmp_path, metrics={"influxdb": True, "seconds": 0.2}, influxdb=server)
    with folder.start("main", "-s", "1", EGX_INFLUXDB__TOKEN=influxdb.token) as job:
        all_written(folder, job)
        job.wait_for(lambda: report(folder).figures["archive"].written == len(BARS), "a report of it")
        assert job.end() == 0
    found = rows(
        influxdb,
        f'from(bucket: "{unique_name}") |> range(start: -1h) |> filter(fn: (r) => r._measurement == "pipeline")'
        ' |> last() |> pivot(rowKey: ["leg"], columnKey: ["_field"], valueColumn: "_value")',
    )
    last = {row["leg"]: row for row in found}
    assert set(last) == set(LEGS)
    for row in last.values():
        assert row["written"] == len(BARS)
        assert row["up"] is False
        assert row["failed"] is False
        assert row["uptime_seconds"] > 0
    assert last["live"]["latency_p99_seconds"] > 0


def test_an_influxdb_that_is_away_holds_up_no_leg_and_is_told_of_once(tmp_path: Path) -> None:
    away = {"url": f"http://127.0.0.1:{free_port()}"}
    folder = folder_with_bars(tmp_path, metrics={"influxdb": True, "seconds": 0.1}, influxdb=away)
    folder.configure(source={**REPLAY, "follow": False}, metrics={"influxdb": True, "seconds": 0.1}, influxdb=away)
    job = folder.run("main", "-s", "1", EGX_INFLUXDB__TOKEN="none")
    assert job.process.returncode == 0, job.output
    assert job.output.count("figures are not written: InfluxDB at") == 1
    assert len(folder.live()) == len(BARS)


def test_a_log_in_json_is_an_object_a_line_with_where_a_message_stood(tmp_path: Path) -> None:
    broker = InProcessBroker()
    for topic in ("egx_market_data", "egx_market_data.dead_letter"):
        broker.create_topic(topic)
    client = {"bootstrap.servers": broker.bootstrap_servers}
    Writer(client, "egx_market_data", stop=threading.Event()).write([Record(b"COMI", message(close=-1))])
    folder = folder_with_bars(tmp_path)
    folder.configure(source={**REPLAY, "follow": False}, kafka={"bootstrap_servers": broker.bootstrap_servers}, logs="json")
    job = folder.run("main")
    assert job.process.returncode == 0, job.output
    lines = [json.loads(line) for line in job.output.splitlines()]
    assert all({"timestamp", "level", "logger", "event", "leg"} <= set(line) for line in lines)
    rejections = {line["leg"]: line for line in lines if "rejects" in line["event"]}
    assert set(rejections) == {"live", "archive"}
    for line in rejections.values():
        assert (line["level"], line["symbol"], line["offset"], line["topic"]) == ("warning", "COMI", 0, "egx_market_data")
        assert line["partition"] in range(4)
    assert any(line["event"].startswith("bars read ") for line in lines)


@pytest.mark.parametrize(
    ("settings", "leg"),
    [
        ({"live": {"store": "influxdb"}, "influxdb": {"url": "http://127.0.0.1:9"}}, "live"),
        ({"archive": {"url": "s3://bucket/", "s3": {"endpoint_url": "http://127.0.0.1:9", "region": "eu-south-1"}}}, "archive"),
    ],
    ids=["InfluxDB away", "S3 away"],
)
def test_a_further_attempt_at_a_store_names_its_leg(tmp_path: Path, settings: dict[str, Any], leg: str) -> None:
    folder = folder_with_bars(tmp_path)
    folder.configure(source={**REPLAY, "follow": False}, logs="json", **settings)
    keys = {"EGX_INFLUXDB__TOKEN": "none", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    with folder.start("main", **keys) as job:
        job.wait_for(lambda: "; attempt 2" in job.output, "another attempt")
        job.end()
    lines = [json.loads(line) for line in job.output.splitlines()]
    assert {line["leg"] for line in lines if line["event"].endswith("; attempt 2")} == {leg}


def test_a_failure_is_one_json_line_too(tmp_path: Path) -> None:
    folder = Folder(tmp_path, source={"kind": "replay", "replay": {"path": "missing.csv"}}, logs="json")
    job = folder.run("main")
    assert job.process.returncode == 1
    line = json.loads(job.output)
    assert (line["level"], line["leg"]) == ("error", "ingest,live,archive")
    assert line["event"].startswith("there is no ")


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.sampled_from([50, 99]))
def test_a_percentile_is_one_of_the_values_with_that_share_below_it(observed: list[float], percent: int) -> None:
    found = percentile(sorted(observed), percent)
    assert found in observed
    assert sum(value < found for value in observed) <= len(observed) * percent / 100
    assert sum(value <= found for value in observed) >= len(observed) * percent / 100


def test_of_no_values_there_is_no_percentile() -> None:
    assert percentile([], 99) is None

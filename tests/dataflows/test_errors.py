"""What people see when something is wrong: one line that says what to do, and status 1."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from connectors.kafka import InProcessBroker, Record, Writer
from tests.dataflows.bars import message
from tests.dataflows.jobs import Folder, minute_bars, write_csv

REPLAY = {"kind": "replay", "replay": {"path": "bars.csv"}}


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.mark.parametrize(
    ("module", "settings", "says"),
    [
        ("main", {"source": {"kind": "bloomberg"}}, ["source.kind", "'bloomberg'", "'simulated'"]),
        ("main", {"sources": {}}, ["unknown setting sources", "there are source, kafka"]),
        ("main", {"archive": {"url": "ftp://x/y"}}, ["archive.url", "'ftp://x/y'", "s3://bucket/prefix/"]),
        ("main", {"source": {"kind": "replay"}}, ["set source.replay.path (EGX_SOURCE__REPLAY__PATH)"]),
        (
            "main",
            {"source": {"kind": "replay", "replay": {"path": "none.csv"}}},
            ["there is no", "none.csv", "source.replay.path"],
        ),
        (
            "main",
            {"source": {"kind": "replay", "replay": {"path": "config.yaml"}}},
            ["config.yaml is no .csv, .csv.gz or .ndjson"],
        ),
        ("main", {"source": {"simulated": {"date": "2001-01-01"}}}, ["no session is known on or before 2001-01-01"]),
        ("main", {"live": {"store": "influxdb"}}, ["EGX_INFLUXDB__TOKEN"]),
        ("live", {}, ["kafka.bootstrap_servers", "EGX_KAFKA__BOOTSTRAP_SERVERS=host:port", "dataflows.main"]),
        ("archive", {}, ["kafka.bootstrap_servers", "dataflows.main"]),
        ("ingest", {}, ["kafka.bootstrap_servers", "dataflows.main"]),
        ("main", {"kafka": {"client": {"no.such.property": 1}}}, ["kafka.client", "no.such.property"]),
        ("main", {"live": {"store": "influxdb"}, "influxdb": {"ca_file": "none.pem"}}, ["influxdb.ca_file", "none.pem"]),
    ],
)
def test_a_wrong_choice(tmp_path: Path, module: str, settings: dict[str, Any], says: list[str]) -> None:
    token = {"EGX_INFLUXDB__TOKEN": "t"} if "influxdb" in settings else {}
    line = Folder(tmp_path, **settings).run(module, **token).failed_with()
    assert [part for part in says if part not in line] == [], line


def test_a_malformed_file_is_named_with_its_line(tmp_path: Path) -> None:
    write_csv(tmp_path / "bars.csv", minute_bars(["COMI"], 2_000))
    with (tmp_path / "bars.csv").open("a") as file:
        file.write("COMI,1 Minute,2025-12-09T08:00:00Z,10.1,many,9.8,10.2,5\n")
    folder = Folder(tmp_path, source=REPLAY)
    line = folder.run("main").failed_with()
    assert f"{tmp_path / 'bars.csv'}:2002: " in line
    assert "`$.high`" in line
    # Mended, it goes on: nothing was lost, and nothing is doubled.
    write_csv(tmp_path / "bars.csv", minute_bars(["COMI"], 2_001))
    assert folder.run("main").process.returncode == 0
    assert folder.count_live() == 2_001


def test_no_broker_at_the_address(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    line = Folder(tmp_path, kafka={"bootstrap_servers": address}).run("archive").failed_with()
    assert f"no Kafka broker answers at {address}" in line
    assert "kafka.bootstrap_servers" in line


def closed_folder(path: Path) -> Path:
    """A folder that this user may not write in; for root, which may everywhere, one in which no file can be made."""
    if os.geteuid() == 0:
        return Path("/proc/self")
    path.mkdir(mode=0o555)
    return path


@pytest.mark.parametrize(
    ("section", "key", "name", "says"),
    [
        ("archive", "url", "archive/", ["archive", "archive.url"]),
        ("live", "sqlite", "live.sqlite", ["cannot write the SQLite file", "live.sqlite", "permissions"]),
        ("ingest", "state", "ingest.sqlite", ["cannot write the SQLite file", "ingest.sqlite", "permissions"]),
    ],
)
def test_a_folder_that_may_not_be_written(tmp_path: Path, section: str, key: str, name: str, says: list[str]) -> None:
    write_csv(tmp_path / "bars.csv", minute_bars(["COMI"], 10))
    at = closed_folder(tmp_path / "closed") / name
    line = Folder(tmp_path, source=REPLAY, **{section: {key: str(at)}}).run("main").failed_with()
    assert [part for part in says if part not in line] == [], line


@pytest.mark.parametrize(
    ("section", "key", "path"),
    [("archive", "url", "taken"), ("archive", "url", "taken/x"), ("live", "sqlite", "taken"), ("ingest", "state", "taken/x")],
)
def test_a_file_where_something_else_should_be(tmp_path: Path, section: str, key: str, path: str) -> None:
    write_csv(tmp_path / "bars.csv", minute_bars(["COMI"], 10))
    (tmp_path / "taken").write_text("not a database, and no folder")
    line = Folder(tmp_path, source=REPLAY, **{section: {key: path}}).run("main").failed_with()
    assert str(tmp_path / path) in line


def test_a_live_store_that_is_read_only(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes read-only files")
    write_csv(tmp_path / "bars.csv", minute_bars(["COMI"], 10))
    (tmp_path / "live.sqlite").touch(mode=0o444)
    line = Folder(tmp_path, source=REPLAY, live={"sqlite": "live.sqlite"}).run("main").failed_with()
    assert "cannot write" in line


def test_messages_that_were_deleted_unread_stop_the_process(tmp_path: Path) -> None:
    broker = InProcessBroker()
    client = {"bootstrap.servers": broker.bootstrap_servers, "compression.type": "none"}
    for topic in ("egx_market_data", "egx_market_data.dead_letter"):
        broker.create_topic(topic)
    writer = Writer(client, "egx_market_data", stop=threading.Event())
    writer.write([Record(b"COMI", message())])
    folder = Folder(tmp_path, kafka={"bootstrap_servers": broker.bootstrap_servers})
    with folder.start("live") as job:
        job.wait_for(lambda: folder.count_live() == 1, "the first bar")
        assert job.end() == 0
    ends = writer.write([Record(b"COMI", message(filler="x" * 900_000)) for _ in range(12)])
    assert len(ends) == 1
    for _ in range(2):  # again at each start, until somebody decides
        line = folder.run("live").failed_with()
        assert "group egx-influxdb-writer stands at offset 1 of egx_market_data[" in line
        assert "deleted unread" in line
        assert "kafka-consumer-groups --reset-offsets --group egx-" in line
        assert "--topic egx_market_data:2 --execute --to-earliest" in line
    assert folder.count_live() == 1

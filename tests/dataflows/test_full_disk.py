"""The local archive on a disk that is full, and then is not."""

from __future__ import annotations

import datetime as dt
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.kafka import Record, Topic, Writer, ensure_topics
from dataflows.bar import Bar, encode
from tests.ci import in_ci
from tests.servers.fixtures import KafkaServer
from tests.servers.legs import run_to_the_end, run_until_it_fails


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        if in_ci():
            pytest.fail(f"cannot mount a tmpfs: {made.stderr}")
        pytest.skip("only root may mount the small file system that this test fills")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_an_error_without_half_objects_and_the_run_goes_on_after_space_is_made(
    kafka: KafkaServer, unique_name: str, small_disk: Path
) -> None:
    client = {"bootstrap.servers": kafka.bootstrap}
    ensure_topics(client, [Topic(unique_name, 2, 7), Topic(f"{unique_name}.dead_letter", 1, 7)])
    now = dt.datetime.now(dt.UTC)
    start = now.replace(second=0, microsecond=0) - dt.timedelta(days=1)
    messages = [
        encode(Bar(f"S{i % 5}", "EGX", "1 Minute", start + i * dt.timedelta(minutes=1), 1.0, 1.0, 1.0, 1.0, i, now, "test", True))
        for i in range(1_000)
    ]
    Writer(client, unique_name, stop=threading.Event()).write(Record(b"%d" % (i % 5), m) for i, m in enumerate(messages))
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
        "KAFKA__TOPIC": unique_name,
        "KAFKA__DEAD_LETTER_TOPIC": f"{unique_name}.dead_letter",
        "ARCHIVE__GROUP": unique_name,
        "ARCHIVE__URL": str(small_disk / "archive"),
        "RETRY_SECONDS": "1",
    }

    errors = run_until_it_fails("archive", settings)

    assert "No space left on device: make space" in errors
    visible = [line for path in small_disk.rglob("*.json") for line in path.read_bytes().split(b"\n")]
    assert set(visible) <= {*messages, b""}
    assert list(small_disk.rglob(".*.tmp")) == []

    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    run_to_the_end("archive", settings, unique_name, unique_name)
    archived = [line for path in small_disk.rglob("*.json") for line in path.read_bytes().splitlines()]
    assert sorted(archived) == sorted(messages)

"""Legs as processes against real servers, run until they have read a topic to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from connectors.kafka import committed_offsets, end_offsets

PROJECT = Path(__file__).resolve().parent.parent.parent


def environment(**settings: str) -> dict[str, str]:
    """The process environment with these settings alone: `KAFKA__TOPIC="x"` becomes EGX_KAFKA__TOPIC."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EGX_", "AWS_"))}
    given = {name if name.startswith("AWS_") else f"EGX_{name}": value for name, value in settings.items()}
    return {**inherited, "EGX_PROGRESS_SECONDS": "0", **given}


def start(leg: str, settings: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bytewax.run", f"dataflows.{leg}", "-s", "1"]
    return subprocess.Popen(command, cwd=PROJECT, env=environment(**settings), stderr=subprocess.PIPE, text=True)


def run_to_the_end(leg: str, settings: dict[str, str], group: str, topic: str) -> str:
    """Runs a leg until its group has committed the topic's ends, then ends it by SIGTERM; what it printed."""
    process = start(leg, settings)
    try:
        deadline = time.monotonic() + 60
        while committed(settings["KAFKA__BOOTSTRAP_SERVERS"], group, topic) != ends(settings["KAFKA__BOOTSTRAP_SERVERS"], topic):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise AssertionError(f"the {leg} leg did not reach the end: {process.communicate()[1]}")
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return errors


def run_until_it_fails(leg: str, settings: dict[str, str]) -> str:
    """Runs a leg that must end with status 1; what it printed."""
    process = start(leg, settings)
    try:
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 1, errors
    return errors


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    """Partition -> the offset of the next message."""
    return end_offsets({"bootstrap.servers": bootstrap}, topic)


def committed(bootstrap: str, group: str, topic: str) -> dict[int, int]:
    """Partition -> committed offset, 0 where there is none."""
    return {p: max(offset, 0) for p, offset in committed_offsets({"bootstrap.servers": bootstrap}, group, topic).items()}

"""Measured child processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parent.parent


@dataclass
class Usage:
    """What a process took until something was done."""

    wall_seconds: float
    cpu_seconds: float
    peak_mb: float


def until(command: Sequence[str], environment: Mapping[str, str], done: Callable[[], bool], *, timeout: float = 300) -> Usage:
    """Runs a command until `done`, then ends it. Raises RuntimeError where it ends by itself or takes too long."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EGX_", "AWS_"))}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=PROJECT, env={**inherited, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
    reader.start()
    watched, peak = psutil.Process(process.pid), 0.0
    try:
        while not done():
            if process.poll() is not None or time.perf_counter() - started > timeout:
                raise RuntimeError(f"{' '.join(command)}: not done: {''.join(errors)[-2000:]}")
            peak = max(peak, watched.memory_info().rss / 1e6)
            time.sleep(0.02)
        wall = time.perf_counter() - started
        times = watched.cpu_times()
        return Usage(wall, times.user + times.system, max(peak, watched.memory_info().rss / 1e6))
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def leg(name: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "bytewax.run", f"dataflows.{name}", *options]

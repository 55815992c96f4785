"""Measured child processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
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


class Started:
    """A running command; ended by SIGTERM when the block is left."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            command, cwd=PROJECT, env=_environment(environment), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._command, self._errors = " ".join(command), list[str]()
        threading.Thread(target=lambda: self._errors.extend(self._process.stderr or ()), daemon=True).start()
        self._watched, self.peak_mb = psutil.Process(self._process.pid), 0.0

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def pin(self, number: int) -> None:
        """Keeps the process, and the threads that it will start, to one of the cores that this one may use; only Linux can."""
        if not hasattr(os, "sched_setaffinity"):
            return
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(self._process.pid, {cores[number % len(cores)]})

    def ask_to_end(self) -> None:
        self._process.terminate()

    def end(self) -> None:
        self.ask_to_end()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def look(self) -> None:
        """Notes how large it is. Raises RuntimeError where it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._command} ended: {''.join(self._errors)[-2000:]}")
        self.peak_mb = max(self.peak_mb, self._watched.memory_info().rss / 1e6)

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        times = self._watched.cpu_times()
        return times.user + times.system

    def wait_for(self, done: Callable[[], bool], *, timeout: float = 300) -> None:
        """Raises RuntimeError where the command ends before it is done, or that takes too long."""
        deadline = time.monotonic() + timeout
        while not done():
            self.look()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._command}: not done in {timeout:g} s: {''.join(self._errors)[-2000:]}")
            time.sleep(0.02)
        self.look()


def until(
    command: Sequence[str],
    environment: Mapping[str, str],
    done: Callable[[], bool],
    *,
    and_ended: bool = False,
    timeout: float = 300,
) -> Usage:
    """Runs a command until `done`, then ends it. :arg and_ended: whether its end counts too (its CPU up to `done` does)."""
    with Started(command, environment) as process:
        process.wait_for(done, timeout=timeout)
        wall, cpu = time.perf_counter() - process.began, process.cpu_seconds()
        if and_ended:
            process.end()
            wall = time.perf_counter() - process.began
        return Usage(wall, cpu, process.peak_mb)


def ended(command: Sequence[str], environment: Mapping[str, str], *, timeout: float = 300) -> Usage:
    """Runs a command to its own end. Raises RuntimeError where it fails or is not done in time."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=_environment(environment), stdout=subprocess.DEVNULL, stderr=errors, text=True
        )
        watched, peak = psutil.Process(process.pid), 0.0
        # What the kernel counts as the largest has the memory of this process in it, from which it was forked.
        while not (found := os.wait4(process.pid, os.WNOHANG))[0]:
            peak = max(peak, watched.memory_info().rss / 1e6)
            if time.perf_counter() - began > timeout:
                process.kill()
            time.sleep(0.02)
        _, status, usage = found
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {errors.read()[-2000:]}")
    return Usage(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, peak)


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a measured process gets: nothing of the settings that may be set here, and byte code that stays, as Python's does."""
    ours = ("EGX_", "AWS_", "BENCH_", "PYTHONDONTWRITEBYTECODE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**inherited, **environment}


def leg(name: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "bytewax.run", f"dataflows.{name}", *options]

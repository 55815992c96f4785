"""Jobs as processes of their own, in a folder of their own, and what they leave there."""

from __future__ import annotations

import csv
import datetime as dt
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from dataflows.bar import Bar

ROOT = Path(__file__).resolve().parents[2]
PROGRESS = ("bars read ", "live ", "archived ")
"""How progress lines begin."""
BARS_AT = dt.datetime(2025, 12, 7, 8, tzinfo=dt.UTC)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Returns once the condition holds; fails when it does not in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds:g} s for {what}"
        time.sleep(0.005)


class Folder:
    """A folder with a config.yaml, for jobs to run in."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.configure(**settings)

    def configure(self, **settings: Any) -> None:
        (self.path / "config.yaml").write_text(yaml.safe_dump({"progress_seconds": 0.1, **settings}))

    def environment(self, **variables: str) -> dict[str, str]:
        """Of this process, without what a developer may have set for the project."""
        inherited = {key: value for key, value in os.environ.items() if not re.match("EGX_|AWS_|BYTEWAX_", key)}
        return {**inherited, "EGX_CONFIG": str(self.path / "config.yaml"), **variables}

    @contextmanager
    def start(self, module: str, *options: str, **variables: str) -> Iterator[Job]:
        """Runs `python -m bytewax.run dataflows.<module>`; it is killed at the latest when the block is left."""
        log = self.path / f"{module}.{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "bytewax.run", *options, f"dataflows.{module}"],
                cwd=ROOT,
                env=self.environment(**variables),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Job(process, log)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def run(self, module: str, *options: str, **variables: str) -> Job:
        """Runs it to its end."""
        with self.start(module, *options, **variables) as job:
            job.process.wait(120)
        return job

    @property
    def objects(self) -> dict[str, bytes]:
        """The archive: key -> body."""
        root = self.path / "data/archive/streaming"
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def archived(self) -> list[dict[str, Any]]:
        """Every record of the archive."""
        return [json.loads(line) for body in self.objects.values() for line in body.splitlines()]

    def live(self) -> list[tuple[Any, ...]]:
        """Every row of the live store: symbol, interval, datetime, open, high, low, close, volume."""
        return _rows(
            self.path / "data/live.sqlite",
            "SELECT symbol, interval, datetime, open, high, low, close, volume FROM stock_price ORDER BY symbol, datetime",
        )

    def count_live(self) -> int:
        path = self.path / "data/live.sqlite"
        return int(_rows(path, "SELECT count(*) FROM stock_price")[0][0]) if path.exists() else 0


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path, timeout=30)
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return [(0,)]
        raise
    finally:
        connection.close()


class Job:
    """A running or ended job."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def counts(self) -> dict[str, int]:
        """Those of the newest progress line; empty before the first."""
        for line in reversed(self.output.splitlines()):
            if line.startswith(PROGRESS):
                found = re.findall(r"(bars read|published|live|archived|rejected|lag) ([\d,]+)", line)
                unchanged = re.search(r"\(([\d,]+) unchanged\)", line)
                counts = {name: int(number.replace(",", "")) for name, number in found}
                return {**counts, "unchanged": int(unchanged[1].replace(",", "")) if unchanged else 0}
        return {}

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        def met_or_over() -> bool:
            return condition() or self.process.poll() is not None

        wait_for(met_or_over, what, seconds)
        assert condition(), f"ended with {self.process.returncode} before {what}:\n{self.output}"

    def end(self, signum: signal.Signals = signal.SIGTERM, seconds: float = 30) -> int:
        """Signals the process and returns its status."""
        self.process.send_signal(signum)
        return self.process.wait(seconds)

    def failed_with(self) -> str:
        """The one line in which it said what is wrong, having ended with status 1."""
        assert self.process.returncode == 1, self.output
        assert "Traceback" not in self.output
        assert "panicked" not in self.output
        told = (*PROGRESS, "egx: made topic ", "egx: group ")
        *before, last = [line for line in self.output.splitlines() if line]
        assert all(line.startswith(told) for line in before), self.output
        assert last.startswith("egx: "), self.output
        return last


def minute_bars(symbols: Iterable[str], minutes: int) -> list[Bar]:
    """Bars of each minute and symbol, all different, in the order of their time."""
    return [
        Bar(
            symbol,
            "EGX",
            "1 Minute",
            BARS_AT + dt.timedelta(minutes=minute),
            *(round(price + minute / 1000, 3) for price in (10.1, 10.9, 9.8, 10.25)),
            100 * number + minute,
            is_final=True,
        )
        for minute in range(minutes)
        for number, symbol in enumerate(symbols)
    ]


def write_csv(path: Path, bars: Iterable[Bar]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["symbol", "interval", "datetime", "open", "high", "low", "close", "volume"])
        writer.writerows(
            (bar.symbol, bar.interval, bar.datetime.isoformat(), bar.open, bar.high, bar.low, bar.close, bar.volume)
            for bar in bars
        )


def row(bar: Bar) -> tuple[Any, ...]:
    """The bar as `Folder.live` gives it."""
    return (
        bar.symbol,
        bar.interval,
        bar.datetime.isoformat(),
        *(bar.open, bar.high, bar.low, bar.close, bar.volume),
    )


def record_row(record: dict[str, Any]) -> tuple[Any, ...]:
    """A record of the archive as `Folder.live` would give it."""
    start = dt.datetime.fromisoformat(record["datetime"]).isoformat()
    return (
        record["symbol"],
        record["interval"],
        start,
        *(record[key] for key in ("open", "high", "low", "close", "volume")),
    )

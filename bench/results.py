"""The results of a run: the table on the screen, JSON in bench/results/, and Markdown for docs/performance.md."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
from pathlib import Path

import msgspec
from rich.table import Table

from bench.place import Row

FOLDER = Path(__file__).parent / "results"
HEADERS = ("work", "measure", "ours", "peer", "ratio", "goal", "met")


class Results(msgspec.Struct):
    """What a run measured, and on what."""

    at: dt.datetime
    machine: str
    commit: str
    """Of the code that was measured."""
    load_before: float
    """Processes that wanted to run in the minute before, as the system's load average says: others' work."""
    bars: int
    rounds: int
    seconds: float
    rows: list[Row]
    complete: bool
    """Whether every case was measured."""

    def title(self) -> str:
        on = f"{self.machine}, load {self.load_before:.1f} before, {self.seconds / 60:.0f} min"
        return f"{self.at:%d %B %Y}, {self.commit}: {self.bars:,} bars, medians of {self.rounds}, {on}"


def machine() -> str:
    return f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"


def commit() -> str:
    """The commit that is checked out, with a + where files differ from it; empty outside of a repository."""
    command = ["git", "-C", str(FOLDER.parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return asked.stdout.strip()


def load_average() -> float:
    return os.getloadavg()[0]


def number(value: float) -> str:
    """Three digits at the least."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cells(row: Row) -> tuple[str, ...]:
    peer = "" if row.peer is None else f"{number(row.peer)} {row.unit}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    met = "" if row.met is None else "yes" if row.met else "no"
    return (row.work, row.measure, f"{number(row.ours)} {row.unit}", peer, ratio, row.goal, met)


def table(found: Results) -> Table:
    shown = Table(title=found.title())
    for header in HEADERS:
        shown.add_column(header, justify="right" if header in ("ours", "peer", "ratio") else "left", no_wrap=header == "ours")
    for row in found.rows:
        shown.add_row(*cells(row))
    return shown


def write(found: Results) -> Path:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{found.at:%Y%m%dT%H%M%S}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    return path


def markdown() -> str:
    """The newest results of all cases. Raises SystemExit where there are none."""
    for path in sorted(FOLDER.glob("*.json"), reverse=True):
        found = msgspec.json.decode(path.read_bytes(), type=Results)
        if found.complete:
            break
    else:
        raise SystemExit("there are no results of all cases yet: run `just bench`")
    lines = [found.title() + ".", "", f"| {' | '.join(HEADERS)} |", "|---|---|---:|---:|---:|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(cells(row))} |" for row in found.rows)])

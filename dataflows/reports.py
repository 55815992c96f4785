"""What each process says of itself in a file of `metrics.folder`, for `dataflows.status`, health checks and the page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

LEGS: Final = ("ingest", "live", "archive")
LATE_SECONDS: Final = 60.0  # without a report, beyond the time from one to the next


class Figures(msgspec.Struct):
    """A leg at one moment: counts since its start, times in seconds (since 1970 where they end in `_at`)."""

    read: int = 0
    written: int = 0
    unchanged: int = 0
    expired: int = 0
    rejected: int = 0
    retries: int = 0
    lag: int | None = None
    per_second: float = 0.0
    latency_p50_seconds: float | None = None
    latency_p99_seconds: float | None = None
    write_p50_seconds: float | None = None
    write_p99_seconds: float | None = None
    batch_records: float | None = None
    epoch_seconds: float | None = None
    last_write_at: float | None = None
    last_commit_at: float | None = None


class Report(msgspec.Struct):
    """What a process says of itself in its file."""

    legs: tuple[str, ...]
    pid: int
    started_at: float
    updated_at: float
    seconds: float
    """From one report to the next."""
    source: str = ""
    ended: bool = False
    error: str | None = None
    """Why it ended, where somebody has to mend something."""
    figures: dict[str, Figures] = {}
    stopped: bool = False
    """Whether it was asked to end, and has not come to the end of its input."""


def report_file(folder: Path, legs: Iterable[str]) -> Path:
    """Where a process of these legs has its report."""
    return folder / f"{'-'.join(legs)}.json"


def write_report(path: Path, report: msgspec.Struct) -> None:
    """Writes the file anew, so that a reader sees a whole one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(report))
    temporary.rename(path)


def read_reports(folder: Path) -> list[Report]:
    """The newest report of each process that ever ran, in the order of their legs. Raises OSError."""
    reports = [_read(path) for path in folder.glob("*.json")]
    return sorted(reports, key=lambda report: (LEGS.index(report.legs[0]), len(report.legs)))


def _read(path: Path) -> Report:
    """A report; of a file that is none, as a crash of the machine may leave it, one that says so as its error."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.DecodeError as error:
        at = path.stat().st_mtime
        legs = tuple(leg for leg in LEGS if leg in path.stem.split("-")) or LEGS
        why = f"its report {path} cannot be read ({error}): a leg that runs writes it anew"
        return Report(legs, 0, at, at, 0.0, error=why)


def newest_by_leg(reports: Iterable[Report]) -> dict[str, tuple[Report, Figures]]:
    """Leg -> the newest report that has it, and its figures; in the order of the legs."""
    found: dict[str, tuple[Report, Figures]] = {}
    for report in sorted(reports, key=lambda report: report.updated_at):
        found |= {leg: (report, report.figures.get(leg, Figures())) for leg in report.legs}
    return {leg: found[leg] for leg in LEGS if leg in found}


def is_alive(report: Report, now: float) -> bool:
    """Whether the process of a report still runs, as far as its reports tell. :arg now: seconds since 1970."""
    return not report.ended and report.error is None and abs(now - report.updated_at) < report.seconds + LATE_SECONDS


def span(seconds: float) -> str:
    """A time span for people: 45 s, 12 min, 3.4 h, 5.1 d."""
    for unit, size, digits in (("d", 86_400, 1), ("h", 3_600, 1), ("min", 60, 0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"

"""Run the warehouse at 02:00 Cairo time and after each session's close: `python -m warehouse.schedule`.

One process, no Airflow needed; deploy/airflow runs it at 02:00 for those who have one. It runs `python -m warehouse.run` (in a
process of its own, so that a failure or leak stays there), tries a failed run again twice, and keeps what it did in
`schedule.json` beside the warehouse, which `--healthy` reads. With a token (EGX_INFLUXDB__TOKEN) the outcome and the
data-quality counts also go to InfluxDB, measurements `warehouse` and `quality`, for Grafana and its alerts.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from connectors.errors import ConnectorError, PermanentError
from connectors.influxdb import fields, series
from dataflows import logs, process
from dataflows.bar import CAIRO
from dataflows.calendar import Calendar, egx
from dataflows.gold import Schedule, quality, read_schedule, schedule_file, write_schedule
from dataflows.reports import span
from dataflows.settings import ROOT, Settings, SettingsError, load
from warehouse.environment import environment

log = logging.getLogger("warehouse.schedule")

NIGHTLY = dt.time(2, 0)  # Africa/Cairo
AFTER_CLOSE = dt.timedelta(minutes=30)  # the source's 15 minutes, its last poll, an epoch, and spare
TRIES = 3
RETRY_SECONDS = 600.0


def next_run(after: dt.datetime, calendar: Calendar) -> dt.datetime:
    """The first time to run after a time (aware): 02:00 in Cairo, or half an hour after a session's close."""
    date = after.astimezone(CAIRO).date()
    times = []
    for day in (date, date + dt.timedelta(days=1)):
        times.append(dt.datetime.combine(day, NIGHTLY, CAIRO).astimezone(dt.UTC))
        if session := calendar.session(day):
            times.append(session.close + AFTER_CLOSE)
    return min(time for time in times if time > after)


class Runner:
    """Runs the warehouse, until it is asked to end."""

    def __init__(
        self,
        settings: Settings,
        stop: threading.Event,
        command: list[str],
        tries: int = TRIES,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._settings, self._stop, self._command = settings, stop, command
        self._tries, self._retry_seconds = tries, retry_seconds

    def run(self) -> Schedule:
        """One run, with its retries; the state has yet to be given its next time."""
        begun = time.monotonic()
        ok = False
        for attempt in range(1, self._tries + 1):
            code = self._once()
            ok = code == 0
            if ok or self._stop.is_set():
                break
            log.error(
                "the warehouse run failed with status %s, attempt %s of %s: its own lines above say why",
                code,
                attempt,
                self._tries,
            )
            if attempt < self._tries and self._stop.wait(self._retry_seconds):
                break
        now = process.now()
        if ok:
            log.info("the warehouse is up to date, after %s", span(time.monotonic() - begun))
        return Schedule(now, now, time.monotonic() - begun, ok)

    def _once(self) -> int:
        prints: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if logs.in_json() else {}
        child = subprocess.Popen(  # noqa: S603 - ours
            self._command, cwd=ROOT, env=environment(self._settings), text=True, errors="replace", **prints
        )
        lines = threading.Thread(target=_log_lines, args=(child.stdout or (),), daemon=True)
        lines.start()
        while True:
            try:
                code = child.wait(0.5)
                lines.join()
                return code
            except subprocess.TimeoutExpired:
                if self._stop.is_set():
                    child.terminate()


def _log_lines(lines: Iterable[str]) -> None:
    """Says each line of a run as a record of the log."""
    for line in lines:
        if line.strip():
            log.info("%s", line.rstrip())


def points(state: Schedule, settings: Settings) -> Iterator[bytes]:
    """The outcome as points of InfluxDB."""
    at = int((state.ended_at or state.next_at).timestamp() * 1e6)
    yield b"%b %b %d" % (
        series("warehouse", {"target": "gold"}),
        fields({"ok": int(bool(state.ok)), "seconds": state.seconds}),
        at,
    )
    for check in quality():
        yield b"%b %b %d" % (series("quality", {"check": check.name}), fields({"ok": check.ok, "warn": check.warn}), at)


def tell_influxdb(state: Schedule, settings: Settings) -> None:
    if settings.influxdb.token is None:
        return
    try:
        server = process.influxdb(settings)
        server.retention_seconds()
        server.write(b"\n".join(points(state, settings)))
        server.close()
    except ConnectorError as error:
        log.warning("the run's figures are not written: %s", error)


def failing(now: dt.datetime) -> str | None:
    """Why the schedule is not healthy, None where it is."""
    try:
        state = read_schedule()
    except PermanentError as error:
        return str(error)
    return state.failing(now) if state else f"the schedule has never run: there is no {schedule_file()}"


def keep_running(runner: Runner, stop: threading.Event, settings: Settings) -> None:
    """Runs once now, to catch up with what was missed, and then at each time of the schedule."""
    # What failed stays failed until a run has succeeded, however often this is started again.
    try:
        last = read_schedule()
    except PermanentError as error:
        log.warning("%s", error)
        last = None
    write_schedule(msgspec.structs.replace(last or Schedule(process.now()), next_at=process.now()))
    while True:
        state = runner.run()
        state.next_at = next_run(process.now(), egx())
        if stop.is_set():
            return
        write_schedule(state)
        tell_influxdb(state, settings)
        log.info("the next warehouse run is at %s Cairo time", f"{state.next_at.astimezone(CAIRO):%Y-%m-%d %H:%M}")
        if stop.wait((state.next_at - process.now()).total_seconds()):
            return


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m warehouse.schedule", description="Run the warehouse at its times.")
    arguments.add_argument("--healthy", action="store_true", help="only whether it runs well: 0, or 1 and why not")
    arguments.add_argument("--once", action="store_true", help="one run with its retries, no schedule")
    arguments.add_argument("--tries", type=int, default=TRIES, help="how often a failing run is tried in all")
    given = arguments.parse_args()
    if given.healthy:
        if (why := failing(process.now())) is not None:
            print(f"egx: {why}", file=sys.stderr)
        return 0 if why is None else 1
    try:
        settings = load()
    except SettingsError as error:
        print(f"egx: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.logs, ("warehouse",))
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    gateway = os.environ.get("WAREHOUSE_GATEWAY")
    command = [sys.executable, "-m", "warehouse.run", *(["--gateway", gateway] if gateway else [])]
    runner = Runner(settings, stop, command, given.tries)
    if given.once:
        state = runner.run()
        state.next_at = next_run(process.now(), egx())
        write_schedule(state)
        tell_influxdb(state, settings)
        return 0 if state.ok else 1
    keep_running(runner, stop, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())

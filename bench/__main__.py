"""`python -m bench` measures; `--quick` only checks that the measuring works; `--report` prints the newest results."""

from __future__ import annotations

import argparse
import datetime as dt
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench import archive, ingest, latency, live, results, scaling, starting
from bench.place import Place, Row

parser = argparse.ArgumentParser(prog="python -m bench")
parser.add_argument("--quick", action="store_true", help="small and once: a check that the benchmarks run")
parser.add_argument("--long", action="store_true", help="a backlog of 10,000,000 bars, too")
parser.add_argument("--only", nargs="+", metavar="CASE", help="some cases only")
parser.add_argument("--bars", type=int, help="bars of the backlog (600,000; quick: 20,000)")
parser.add_argument("--rounds", type=int, help="how often each pair is measured in turn (5; quick: 1)")
parser.add_argument("--report", action="store_true", help="print the newest results as Markdown, and measure nothing")
chosen = parser.parse_args()
console = Console(width=150)
if chosen.report:
    print(results.markdown())
    raise SystemExit
quick = chosen.quick
bars = chosen.bars or (20_000 if quick else 600_000)
rounds = chosen.rounds or (1 if quick else 5)
backlogs = [20_000, 40_000] if quick else [100_000, 1_000_000] + ([10_000_000] if chosen.long else [])
cases: dict[str, Callable[[Place], list[Row]]] = {
    "telegraf": lambda place: live.against_telegraf(place, rounds),
    "ready-lines": lambda place: live.against_ready_lines(place, rounds),
    "archive": lambda place: archive.against_consuming(place, rounds),
    "ingest": lambda place: ingest.against_producing(place, rounds) + ingest.simulated(place),
    "latency": lambda place: latency.from_source_to_query(place, rounds, 3 if quick else 15),
    "processes": lambda place: scaling.two_processes(place, rounds, bars if quick else 4 * bars),
    "start": lambda place: starting.start(place, rounds),
    "idle": lambda place: starting.idle(place, 2 if quick else 20),
    "growth": lambda place: scaling.growth(place, rounds, backlogs, [16, 250, 5_000]),
}
if unknown := set(chosen.only or ()) - set(cases):
    parser.error(f"no case {', '.join(sorted(unknown))}: there are {', '.join(cases)}")
began = time.monotonic()
at, before = dt.datetime.now(dt.UTC).replace(microsecond=0), results.load_average()
rows: list[Row] = []
left_out: list[str] = []
with tempfile.TemporaryDirectory(prefix="bench-") as folder, Place.open(Path(folder), bars) as place:
    for name, case in cases.items():
        if chosen.only and name not in chosen.only:
            continue
        console.print(f"[dim]{name} ...[/]")
        try:
            measured = case(place)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            # What needs Go, the network or memory that is not there must not hide the rest.
            left_out.append(name)
            console.print(f"  left out: {error}", highlight=False, markup=False)
            continue
        for row in measured:
            rows.append(row)
            console.print(f"  {row.measure}: {results.number(row.ours)} {row.unit}", highlight=False)
        complete = not left_out and name == list(cases)[-1] and not chosen.only
        found = results.Results(
            at, results.machine(), results.commit(), before, bars, rounds, time.monotonic() - began, rows, complete
        )
        if not quick:
            results.write(found)  # after each case: a run that is broken off has measured something
if rows:
    console.print(results.table(found))
if left_out:
    console.print(f"left out: {', '.join(left_out)}")
    raise SystemExit(1)

"""`python -m bench` measures; `--quick` only checks that the measuring works."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import cases

parser = argparse.ArgumentParser(prog="python -m bench")
parser.add_argument("--quick", action="store_true", help="small and once: a check that the benchmarks run")
parser.add_argument("--bars", type=int, help="bars of the backlog (600,000; quick: 20,000)")
parser.add_argument("--rounds", type=int, help="how often each pair is measured in turn (5; quick: 1)")
chosen = parser.parse_args()
bars = chosen.bars or (20_000 if chosen.quick else 600_000)
rounds = chosen.rounds or (1 if chosen.quick else 5)
console = Console()
rows: list[cases.Row] = []
with tempfile.TemporaryDirectory(prefix="bench-") as folder, cases.Place.open(Path(folder), bars) as place:
    for case in (
        lambda: cases.live_against_telegraf(place, rounds),
        lambda: cases.live_against_ready_lines(place, rounds),
        lambda: cases.archive_against_consuming(place, rounds),
        lambda: cases.start_and_idle(place, rounds, 2 if chosen.quick else 20),
        lambda: cases.ingest_against_producing(place, rounds),  # last: it writes into the topic
    ):
        made = case()
        rows += made
        for row in made:
            console.print(f"{row.case}: {row.what}: {row.value:,.2f} {row.unit} {row.goal}")
table = Table(title=f"{bars:,} bars, {rounds} rounds, {platform.machine()}, Python {platform.python_version()}")
for header in ("case", "what", "value", "unit", "goal", "met"):
    table.add_column(header, justify="right" if header == "value" else "left")
for row in rows:
    met = "" if row.met is None else "yes" if row.met else "no"
    table.add_row(row.case, row.what, f"{row.value:,.2f}", row.unit, row.goal, met)
console.print(table)
if not chosen.quick:
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    path = results / f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps([row.plain() for row in rows], indent=1))
    console.print(f"written to {path}")

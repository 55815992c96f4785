"""The long crash suite: `python -m tests.crash --faults 200 --seed 1` runs it and prints its table."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.crash.suite import Result, run


def table(result: Result) -> Table:
    made = Table(title=f"seed {result.seed}: {result.faults.total()} faults in {result.seconds:.0f} s")
    made.add_column("what")
    made.add_column("count", justify="right")
    for name, count in sorted(result.faults.items()):
        made.add_row(name, f"{count:,}")
    made.add_section()
    for leg, count in sorted(result.restarts.items()):
        made.add_row(f"{leg} leg: started again", f"{count:,}")
    for name in ("messages", "bars", "poison", "objects"):
        made.add_row(name, f"{getattr(result, name):,}")
    made.add_section()
    for name in ("archive_lost", "archive_doubled", "live_wrong", "dead_letters_wrong", "uncommitted"):
        made.add_row(name.replace("_", " "), f"{getattr(result, name):,}")
    return made


parser = argparse.ArgumentParser(prog="python -m tests.crash")
parser.add_argument("--faults", type=int, default=200)
parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
chosen = parser.parse_args()
folder = Path(tempfile.mkdtemp(prefix="crash-"))
console = Console(width=None if sys.stdout.isatty() else 80)
console.print(f"seed {chosen.seed}, data and logs in {folder}")
result = run(chosen.faults, chosen.seed, folder, say=console.print)
console.print(table(result))
sys.exit(bool(result.wrong()))

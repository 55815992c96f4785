"""`python -m bench.warehouse` measures the warehouse beside dbt-duckdb on the same models; `--quick` checks that it runs.

Both run on the same DuckDB release over the same archive in turn, as a new process each time, and what is printed is ratios
of the medians. dbt gets the very SQL that SQLMesh renders for DuckDB (the incremental models with the same strategy), the
Python models, and the tests that SQLMesh has as audits; it publishes nothing, SQLMesh publishes its Parquet files too.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from bench.warehouse import dbt

PROJECT = Path(__file__).resolve().parents[2]
END = dt.date(2025, 12, 31)


def make_archive(folder: Path, symbols: int, years: int) -> int:
    """A day's Daily bars of each symbol in one object a (date, symbol batch), two versions each; returns how many bars."""
    first = dt.date(END.year - years + 1, 1, 1)
    c = duckdb.connect()
    c.execute("SELECT SETSEED(0.42)")
    c.execute(f"""
        CREATE TABLE bars AS
        WITH walk AS (
            SELECT d::DATE AS day, 'S' || LPAD(s::VARCHAR, 3, '0') AS symbol, (RANDOM() + RANDOM() + RANDOM() - 1.5) * 0.03 AS r,
              RANDOM() AS u
            FROM GENERATE_SERIES(DATE '{first}', DATE '{END}', INTERVAL 1 DAY) AS g(d), RANGE({symbols}) AS t(s)
            WHERE ISODOW(d) NOT IN (5, 6)
        )
        SELECT *, ROUND(50 * EXP(SUM(r) OVER (PARTITION BY symbol ORDER BY day) / 4), 2) AS close FROM walk
    """)
    c.execute("""
        CREATE TABLE records AS
        SELECT day, symbol, 'EGX' AS exchange, 'Daily' AS interval, STRFTIME(day, '%Y-%m-%dT08:00:00Z') AS datetime,
          ROUND(close * (1 - r / 5), 2) AS open, ROUND(GREATEST(close, close * (1 - r / 5)) * 1.004, 2) AS high,
          ROUND(LEAST(close, close * (1 - r / 5)) * 0.996, 2) AS low, close, (u * 1e6)::BIGINT + 100 * v AS volume,
          STRFTIME(day + INTERVAL 9 HOUR + INTERVAL (v * 3) HOUR, '%Y-%m-%dT%H:%M:%S.000000Z') AS ingestion_timestamp,
          'bench' AS source, v = 1 AS is_final
        FROM bars, RANGE(2) AS versions(v)
    """)
    c.execute("SET preserve_insertion_order = TRUE")
    for (day,) in c.execute("SELECT DISTINCT day FROM records ORDER BY day").fetchall():
        target = folder / "streaming" / f"date={day}" / "symbol=ALL"
        target.mkdir(parents=True)
        c.execute(
            f"COPY (SELECT * EXCLUDE (day) FROM records WHERE day = '{day}' ORDER BY ingestion_timestamp, symbol) "
            f"TO '{target}/090000000000-0-000000000000000000.json' (FORMAT json)"
        )
    return c.execute("SELECT COUNT(*) FROM bars").fetchone()[0]  # type: ignore[index]


def timed(command: list[str], environment: dict[str, str], folder: Path) -> float:
    start = time.perf_counter()
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}")
    return seconds


class Sqlmesh:
    """The project itself, on files of its own."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "EGX_WAREHOUSE_ARCHIVE": str(archive),
            "EGX_WAREHOUSE": str(folder),
            "EGX_START": "2000-01-01",
        }

    def command(self, *arguments: str) -> float:
        program = str(Path(sys.executable).with_name("sqlmesh"))
        return timed([program, "-p", "warehouse", *arguments], self.environment, PROJECT)

    def cold(self, day: dt.date) -> float:
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.command(
            "plan", "--auto-apply", "--no-prompts", "--skip-tests", "--execution-time", f"{day + dt.timedelta(1)}"
        )

    def day(self, day: dt.date) -> float:
        return self.command("run", "--ignore-cron", "--end", str(day))


def measure(symbols: int, years: int, rounds: int, colds: int, place: Path, dbt_bin: Path) -> dict[str, float]:
    """Cold builds of all but the last `rounds` days, then those days one by one, each in turn with dbt; seconds and ratios."""
    archive = place / "archive"
    bars = make_archive(archive, symbols, years)
    days = sorted(path.name.removeprefix("date=") for path in (archive / "streaming").iterdir())[-rounds:]
    held = place / "held"
    for day in days:  # delivered one by one, after the cold build
        (held / f"date={day}").parent.mkdir(exist_ok=True)
        (archive / "streaming" / f"date={day}").rename(held / f"date={day}")
    built = dt.date.fromisoformat(days[0]) - dt.timedelta(1)
    ours = Sqlmesh(archive, place / "sqlmesh")
    theirs = dbt.Dbt(archive, place / "dbt", dbt_bin, timed)
    cold: dict[str, list[float]] = {"sqlmesh": [], "dbt": []}
    day_runs: dict[str, list[float]] = {"sqlmesh": [], "dbt": []}
    for number in range(colds):
        cold["sqlmesh"].append(ours.cold(built))
        if number == 0:
            theirs.write_models(ours.environment)
        cold["dbt"].append(theirs.cold(built))
    for day in days:
        (held / f"date={day}").rename(archive / "streaming" / f"date={day}")
        date = dt.date.fromisoformat(day)
        day_runs["sqlmesh"].append(ours.day(date))
        day_runs["dbt"].append(theirs.day(date))
    assert (differing := theirs.differing(place / "sqlmesh" / "egx_dw.duckdb")) == 0, f"{differing} rows are not the same"
    return {
        "bars": bars,
        "cold build, ratio to dbt": statistics.median(cold["sqlmesh"]) / statistics.median(cold["dbt"]),
        "one day, ratio to dbt": statistics.median(day_runs["sqlmesh"]) / statistics.median(day_runs["dbt"]),
        "cold build, seconds": statistics.median(cold["sqlmesh"]),
        "one day, seconds": statistics.median(day_runs["sqlmesh"]),
    }


def objects_a_second(place: Path, objects: int) -> tuple[float, float]:
    """One day of small objects: how many a second bronze's query reads, parses and judges into a table, and how many a whole
    run of bronze loads (with audits and SQLMesh's own time, some seconds whatever the size)."""
    archive = place / "objects"
    record = json.dumps({
        "symbol": "COMI", "exchange": "EGX", "interval": "1 Minute", "datetime": "2025-12-07T08:00:00Z", "open": 83.1, "high": 84,
        "low": 82.75, "close": 83.9, "volume": 1250000, "ingestion_timestamp": "2025-12-07T08:01:00.000001Z", "source": "bench",
        "is_final": True,
    })  # fmt: skip
    for number in range(objects):
        folder = archive / "streaming" / "date=2025-12-07" / f"symbol=S{number % 250:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"080100{number % 10**6:06d}-0-{number:018d}.json").write_text(record + "\n")
    os.environ |= {"EGX_WAREHOUSE_ARCHIVE": str(archive), "EGX_WAREHOUSE": str(place / "objects_warehouse")}
    from sqlmesh import Context
    from sqlmesh.core.macros import RuntimeStage

    context = Context(paths=str(PROJECT / "warehouse"))
    model = ["bronze.stock_prices_raw"]
    adapter = context.engine_adapter
    query = context.get_model(model[0], raise_if_missing=True).render_query_or_raise(
        start="2025-12-07", end="2025-12-07", runtime_stage=RuntimeStage.EVALUATING, engine_adapter=adapter
    )
    queries = []
    for _ in range(3):
        start = time.perf_counter()
        adapter.execute(f"CREATE OR REPLACE TEMP TABLE read_by_bench AS {query.sql('duckdb')}")
        queries.append(time.perf_counter() - start)
    assert adapter.fetchone("SELECT COUNT(*) FROM read_by_bench") == (objects,)
    context.plan(auto_apply=True, no_prompts=True, skip_tests=True, select_models=model, execution_time="2025-12-07")
    seconds = []
    for day in ("2025-12-08", "2025-12-09"):  # the second reads the same day again: a run looks one day back
        start = time.perf_counter()
        context.run(ignore_cron=True, select_models=model, execution_time=day)
        seconds.append(time.perf_counter() - start)
    assert context.engine_adapter.fetchone("SELECT COUNT(*) FROM bronze.stock_prices_raw") == (objects,)
    context.close()
    return objects / statistics.median(queries), objects / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.warehouse", description=str(__doc__).split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and once: a check that the benchmark runs")
    quick = parser.parse_args().quick
    made = subprocess.run(
        [str(Path(__file__).with_name("dbt_venv.sh")), duckdb.__version__],
        env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    sizes = {"small": (4, 1)} if quick else {"16 symbols, 3 years": (16, 3), "250 symbols, 20 years": (250, 20)}
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name, (symbols, years) in sizes.items():
            place = Path(folder) / str(symbols)
            place.mkdir()
            rounds, colds = (1, 1) if quick else (3, 3)
            results[name] = measure(symbols, years, rounds, colds, place, Path(made.stdout.strip()))
            print(f"{name}: {json.dumps(results[name])}", flush=True)
        reading, loading = objects_a_second(Path(folder), 500 if quick else 20_000)
    print(f"bronze's query reads {reading:,.0f} objects/s (goal 10,000), a whole run of bronze loads {loading:,.0f}/s")
    if not quick:
        small, large = results.values()
        growth = large["one day, seconds"] / small["one day, seconds"]
        print(f"a day's run at 1.3 M bars takes {growth:.2f} times that at 12 thousand (goal 2)")
        print(f"a day's run: {small['one day, ratio to dbt']:.2f} and {large['one day, ratio to dbt']:.2f} of dbt's (goal 1)")
        print(f"a cold build of 1.3 M bars: {large['cold build, ratio to dbt']:.2f} of dbt's (goal 1.1)")


if __name__ == "__main__":
    main()

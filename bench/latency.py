"""How long a bar takes from the source to InfluxDB."""

from __future__ import annotations

import datetime as dt
import statistics
import sys
import time
from collections.abc import Mapping

from bench.place import Place, Row
from bench.process import Started, leg
from dataflows.metrics import percentile


def from_source_to_query(place: Place, rounds: int, seconds: float) -> list[Row]:
    """The ingest and the live leg as processes: a bar is at the source -> a query gives it, whose own time is included.

    The median of the percentiles of `rounds` runs of so many seconds.
    """
    rows = []
    for name, symbols, ticks, limit in (("16 symbols, twice a second", 16, 2, 0.1), ("10,000 bars/s", 250, 40, 1.0)):
        runs = [_latencies(place, f"latency{symbols}-{number}", symbols, ticks, seconds) for number in range(rounds)]
        p50, p99 = (statistics.median(_percentile(run, of) for run in runs) for of in (50, 99))
        seen = f"{name}: p99 (of {sum(map(len, runs)):,})"
        goal = f"<= {limit * 1000:,.0f} ms"
        rows += [
            Row("latency", f"{name}: p50", p50 * 1000, "ms"),
            Row("latency", seen, p99 * 1000, "ms", None, None, goal, p99 <= limit),
        ]
    return rows


def _percentile(latencies: list[float], of: int) -> float:
    found = percentile(sorted(latencies), of)
    if found is None:
        raise RuntimeError("no bar was seen")
    return found


def _latencies(place: Place, name: str, symbols: int, ticks: int, seconds: float) -> list[float]:
    """Of the bars of 16 symbols at the most (the last of each tick): asking for all would load the server."""
    place.fill(name, 0)
    place.make_bucket(name)
    settings = place.settings(name, name) | {"BENCH_SYMBOLS": str(symbols), "BENCH_TICKS": str(ticks)}
    asked = " or ".join(f'r.symbol == "S{number:05d}"' for number in range(symbols - min(symbols, 16), symbols))
    latencies: dict[tuple[str, str], float] = {}
    feed = [sys.executable, "-m", "bytewax.run", "bench.flows:feeding"]
    with Started(leg("live"), settings) as live, Started(feed, settings) as source:
        began: float | None = None
        waited = time.monotonic()
        while began is None or time.monotonic() - began < seconds:
            flux = (
                f'from(bucket: "{name}") |> range(start: -2s) |> filter(fn: (r) => r._field == "close" and ({asked}))'
                ' |> keep(columns: ["_time", "_value", "symbol"])'
            )
            rows = place.query(flux)
            now = dt.datetime.now(dt.UTC)
            if rows and began is None:
                began = time.monotonic()
                # What waited while the legs started is not the load that is measured.
                warm = now + dt.timedelta(seconds=2)
            for row in rows:
                at = dt.datetime.fromisoformat(row["_time"])
                if at > warm:
                    latencies.setdefault((row["symbol"], row["_time"]), (now - at).total_seconds())
            live.look()
            source.look()
            if began is None and time.monotonic() - waited > 60:
                raise RuntimeError("no bar has arrived in 60 s")
            time.sleep(0.005)
        until = now - dt.timedelta(seconds=2)
        if until > warm:
            whole = flux.replace("start: -2s", f"start: {warm.isoformat()}, stop: {until.isoformat()}")
            _check_complete(place.query(whole), latencies)
    return list(latencies.values())


def _check_complete(rows: list[Mapping[str, str]], latencies: Mapping[tuple[str, str], float]) -> None:
    """What took longer than the two seconds that are asked for has no latency, and must not be left out unsaid."""
    late = {(row["symbol"], row["_time"]) for row in rows} - latencies.keys()
    if late or not rows:
        raise RuntimeError(f"{len(late)} of {len(rows)} bars took longer than 2 s")

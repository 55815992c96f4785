"""How the live leg scales: with processes, with the backlog, with symbols.

Its sink only counts, so that InfluxDB sets no limit.
"""

from __future__ import annotations

import statistics
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import psutil

from bench.place import Place, Row
from bench.process import Started
from tests.servers.process import free_port

COUNTING = [sys.executable, "-m", "bytewax.run", "bench.flows:counting"]


@dataclass
class Count:
    """One request of a counting process: seconds since 1970, its CPU seconds so far, its lines."""

    at: float
    cpu: float
    lines: int


def counts(place: Place, topic: str, bars: int, processes: int = 1) -> list[list[Count]]:
    """Runs the counting leg until it has counted `bars`; each process's requests in their order."""
    name = f"count{uuid.uuid4().hex[:8]}"
    settings = place.settings(name, topic, EGX_KAFKA__READERS=str(processes)) | {"BENCH_COUNTS": str(place.folder / name)}
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(processes))

    def read() -> Iterator[list[Count]]:
        for path in place.folder.glob(f"{name}.*[0-9]"):
            # The last line may be unfinished.
            lines = path.read_text().split("\n")[:-1]
            found = [line.split() for line in lines]
            yield sorted((Count(float(at), float(cpu), int(number)) for at, cpu, number in found), key=lambda count: count.at)

    with ExitStack() as stack:
        started = [
            stack.enter_context(Started([*COUNTING, *(["-i", str(number), "-a", addresses] if processes > 1 else [])], settings))
            for number in range(processes)
        ]
        started[0].wait_for(lambda: sum(count.lines for one in read() for count in one) >= bars)
        found = list(read())
        for one in started:
            one.ask_to_end()  # all at once: one alone would wait for the others
    return [one for one in found if one]


def rate(found: list[list[Count]]) -> float:
    """Lines a second from the first request of any process to the last of any; the first ones themselves are not counted."""
    first, last = min(one[0].at for one in found), max(one[-1].at for one in found)
    return sum(count.lines for one in found for count in one[1:]) / (last - first)


def cpu_a_line(found: list[list[Count]]) -> float:
    """Microseconds of CPU a line, from the first request to the last: the start is not in it."""
    (one,) = found
    return (one[-1].cpu - one[0].cpu) / sum(count.lines for count in one[1:]) * 1e6


def two_processes(place: Place, rounds: int, bars: int) -> list[Row]:
    """Two processes against one, 8 partitions."""
    place.fill("wide", bars, partitions=8)
    one, two, busy = [], [], []
    for _ in range(rounds):
        one.append(rate(counts(place, "wide", bars)))
        psutil.cpu_percent()
        two.append(rate(counts(place, "wide", bars, processes=2)))
        busy.append(psutil.cpu_percent())
    ratio = statistics.median(b / a for a, b in zip(one, two, strict=True))
    rates = statistics.median(two), "bars/s", statistics.median(one)
    return [
        Row("scaling", "two processes, beside one; the sink counts", *rates, ratio, ">= 1.8x", ratio >= 1.8),
        Row("scaling", "all cores meanwhile", statistics.median(busy), "%"),
    ]


def growth(place: Place, rounds: int, backlogs: list[int], symbols: list[int]) -> list[Row]:
    """CPU a bar with the size of the backlog, and with the number of symbols."""
    return [
        _grown(place, rounds, [(f"a backlog of {bars:,} bars", f"backlog{bars}", bars, 250) for bars in backlogs]),
        _grown(place, rounds, [(f"{number:,} symbols", f"symbols{number}", min(backlogs[1:]), number) for number in symbols]),
    ]


def _grown(place: Place, rounds: int, sizes: list[tuple[str, str, int, int]]) -> Row:
    costs: dict[str, list[float]] = {what: [] for what, *_ in sizes}
    for _, topic, bars, symbols in sizes:
        place.fill(topic, bars, symbols=symbols)
    for _ in range(rounds):
        for what, topic, bars, _ in sizes:
            costs[what].append(cpu_a_line(counts(place, topic, bars)))
    medians = {what: statistics.median(values) for what, values in costs.items()}
    most, least = max(medians, key=lambda what: medians[what]), min(medians, key=lambda what: medians[what])
    ratio = medians[most] / medians[least]
    return Row(
        "growth", f"CPU a bar: {most}, beside {least}", medians[most], "us", medians[least], ratio, "<= 1.3x", ratio <= 1.3
    )

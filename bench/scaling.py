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

from bench.place import Place, Row, cpu_of
from bench.process import Started
from tests.servers.process import free_port

COUNTING = [sys.executable, "-m", "bytewax.run", "bench.flows:counting"]


@dataclass
class Count:
    """One request of a counting process: seconds since 1970, its CPU seconds so far, its lines."""

    at: float
    cpu: float
    lines: int


@dataclass
class Counted:
    """What the processes of one run counted: each one's requests in their order; and the largest process's memory."""

    processes: list[list[Count]]
    peak_mb: float

    def rate(self) -> float:
        """Lines a second from the first request of any process to the last of any; the first ones themselves are not counted."""
        first, last = min(one[0].at for one in self.processes), max(one[-1].at for one in self.processes)
        return sum(count.lines for one in self.processes for count in one[1:]) / (last - first)

    def cpu_a_line(self) -> float:
        """Microseconds of CPU a line, from the first request to the last: the start is not in it."""
        cpu = sum(one[-1].cpu - one[0].cpu for one in self.processes)
        return cpu / sum(count.lines for one in self.processes for count in one[1:]) * 1e6


def counts(place: Place, topic: str, bars: int, processes: int = 1, *, pinned: bool = False) -> Counted:
    """Runs the counting leg until it has counted `bars`. :arg pinned: each process on a core of its own."""
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
        if pinned:
            for number, one in enumerate(started):
                one.pin(number)

        def counted() -> bool:
            for one in started:
                one.look()
            return sum(count.lines for one in read() for count in one) >= bars

        started[0].wait_for(counted)
        found = list(read())
        for one in started:
            one.ask_to_end()  # all at once: one alone would wait for the others
    return Counted([one for one in found if one], max(one.peak_mb for one in started))


def two_processes(place: Place, rounds: int, bars: int) -> list[Row]:
    """Two processes against one, 8 partitions: each kept to a core of its own, and where the system puts them."""
    place.fill("wide", bars, partitions=8)
    one, pinned, free = [], [], []
    kafka: list[float] = []
    busy: list[float] = []
    for _ in range(rounds):
        one.append(counts(place, "wide", bars))
        pinned.append(counts(place, "wide", bars, processes=2, pinned=True))
        psutil.cpu_percent()
        with cpu_of(place.kafka, kafka):
            free.append(counts(place, "wide", bars, processes=2))
        busy.append(psutil.cpu_percent())

    def row(measure: str, two: list[Counted], goal: str = "") -> Row:
        ratio = statistics.median(b.rate() / a.rate() for a, b in zip(one, two, strict=True))
        rates = statistics.median(run.rate() for run in two), "bars/s", statistics.median(run.rate() for run in one)
        return Row("scaling", measure, *rates, ratio, goal, ratio >= 1.8 if goal else None)

    cpu = [statistics.median(run.cpu_a_line() for run in runs) for runs in (free, one)]
    return [
        row("two processes, beside one; the sink counts", free, ">= 1.8x"),
        row("the same, each kept to a core", pinned),
        Row("scaling", "CPU a bar, of both processes", cpu[0], "us", cpu[1], cpu[0] / cpu[1]),
        Row("scaling", "Kafka's CPU a bar meanwhile", statistics.median(kafka) / bars * 1e6, "us"),
        Row("scaling", "all cores meanwhile, starts included", statistics.median(busy), "%"),
    ]


def growth(place: Place, rounds: int, backlogs: list[int], symbols: list[int]) -> list[Row]:
    """CPU a bar and memory with the size of the backlog, and with the number of symbols."""
    return [
        *_grown(place, rounds, [(f"a backlog of {bars:,} bars", f"backlog{bars}", bars, 250) for bars in backlogs]),
        *_grown(place, rounds, [(f"{number:,} symbols", f"symbols{number}", min(backlogs[1:]), number) for number in symbols]),
    ]


def _grown(place: Place, rounds: int, sizes: list[tuple[str, str, int, int]]) -> list[Row]:
    runs: dict[str, list[Counted]] = {what: [] for what, *_ in sizes}
    for _, topic, bars, symbols in sizes:
        place.fill(topic, bars, symbols=symbols)
    for _ in range(rounds):
        for what, topic, bars, _ in sizes:
            runs[what].append(counts(place, topic, bars))
    medians = {what: statistics.median(run.cpu_a_line() for run in found) for what, found in runs.items()}
    most, least = max(medians, key=lambda what: medians[what]), min(medians, key=lambda what: medians[what])
    ratio = medians[most] / medians[least]
    *_, largest = runs
    peak = max(run.peak_mb for run in runs[largest])
    return [
        Row("growth", f"CPU a bar: {most}, beside {least}", medians[most], "us", medians[least], ratio, "<= 1.3x", ratio <= 1.3),
        Row("growth", f"peak memory: {largest}", peak, "MB", None, None, "<= 250 MB", peak <= 250),
    ]

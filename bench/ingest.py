"""The ingest leg on bars that are ready."""

from __future__ import annotations

import datetime as dt
import json
import statistics
import sys
import time

from confluent_kafka import Producer

from bench.bars import SYMBOLS, messages
from bench.place import Place, Row
from bench.process import ended, leg
from connectors.kafka import Record
from dataflows import process
from dataflows.bar import Bar, decode
from dataflows.published import Published
from dataflows.sources.replay import BATCH
from tests.servers.legs import ends

OFFERING = [sys.executable, "-m", "bytewax.run", "bench.flows:offering"]


def against_producing(place: Place, rounds: int) -> list[Row]:
    """New bars of a source that has them ready -> Kafka: the whole process, from the first that it takes until it has ended,
    beside confluent-kafka's own loop over ready messages with the same properties (acks=all, idempotent, zstd).

    Both wait for every delivery. The same bars once more show what a poll costs in which nothing has changed.
    """
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
    ready = list(messages(place.bars, SYMBOLS, start))
    ours, alone, cpus = [], [], []
    for number in range(rounds):
        alone.append(_produce(place, ready))
        name = f"ingest{number}"
        place.fill(name, 0)
        began = place.folder / f"{name}.began"
        settings = place.settings(name, name) | {"BENCH_BARS": str(place.bars), "BENCH_BEGAN": str(began)}
        usage = ended(OFFERING, settings)
        at, cpu = map(float, began.read_text().split())
        ours.append(time.time() - at)
        cpus.append((usage.cpu_seconds - cpu) / place.bars * 1e6)
        if (written := sum(ends(place.kafka.address, name).values())) != place.bars:
            raise RuntimeError(f"{written} of {place.bars} bars are in the topic")
    ratio = statistics.median(b / a for a, b in zip(ours, alone, strict=True))
    rate, peer = place.bars / statistics.median(ours), place.bars / statistics.median(alone)
    return [
        Row(
            "ingest",
            "bars that are ready to Kafka, beside a bare produce loop",
            rate,
            "bars/s",
            peer,
            ratio,
            ">= 0.6x",
            ratio >= 0.6,
        ),
        Row("ingest", "CPU a bar, without the source", statistics.median(cpus), "us"),
        Row("ingest", "a polled bar that has not changed", _unchanged(place, ready), "us"),
    ]


def simulated(place: Place) -> list[Row]:
    """The whole ingest process with the simulated source, which makes its bars as fast as it can: 250 symbols, one session."""
    place.fill("simulated", 0)
    symbols = json.dumps([f"S{number:05d}" for number in range(SYMBOLS)])
    settings = {
        "EGX_SOURCE__KIND": "simulated",
        "EGX_SOURCE__SYMBOLS": symbols,
        "EGX_SOURCE__SIMULATED__SPEED": "0",
        "EGX_SOURCE__FOLLOW": "false",
    }
    usage = ended(leg("ingest"), place.settings("simulated", "simulated") | settings)
    bars = sum(ends(place.kafka.address, "simulated").values())
    measure = f"{bars:,} simulated bars to Kafka, start and source included"
    return [
        Row("ingest", measure, bars / usage.wall_seconds, "bars/s"),
        Row("ingest", "peak memory meanwhile", usage.peak_mb, "MB"),
    ]


def _produce(place: Place, ready: list[Record]) -> float:
    """Seconds that a bare producer takes."""
    place.fill("produced", 0)
    producer = Producer(
        {
            "bootstrap.servers": place.kafka.address,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "zstd",
        }
    )
    began = time.perf_counter()
    for record in ready:
        while True:
            try:
                producer.produce("produced", record.value, record.key)
                break
            except BufferError:
                producer.poll(0.01)
    producer.flush()
    return time.perf_counter() - began


def _unchanged(place: Place, ready: list[Record]) -> float:
    """Microseconds for a bar that was published before, in the same version."""
    process.collect_seldom()  # as the leg's process does
    now = dt.datetime.now(dt.UTC)
    bars = [bar for record in ready[:100_000] if isinstance(bar := decode(record.value, now), Bar)]
    batches = [bars[first : first + BATCH] for first in range(0, len(bars), BATCH)]
    published = Published(place.folder / "unchanged.sqlite", "bench", lambda ends: True)
    for batch in batches:
        published.stamp(published.changed(batch), now)
        published.written(len(batch), {})
    began = time.perf_counter()
    if any(published.changed(batch) for batch in batches):
        raise RuntimeError("a bar that has not changed is taken for a new one")
    return (time.perf_counter() - began) / len(bars) * 1e6

"""The ingest leg's own work."""

from __future__ import annotations

import datetime as dt
import statistics
import threading
import time
from typing import Any

from confluent_kafka import Producer

from bench.bars import messages
from bench.place import Place, Row
from connectors.kafka import KafkaSink
from dataflows import process
from dataflows.bar import Bar, decode
from dataflows.ingest import AHEAD_FROM, to_records
from dataflows.published import Published
from dataflows.sources.replay import BATCH


def against_producing(place: Place, rounds: int) -> list[Row]:
    """New bars -> remembered, stamped, encoded -> Kafka, against confluent-kafka's own loop over ready messages.

    Both with the same properties (acks=all, idempotent, zstd) and both waiting for every delivery; a second pass of the same
    bars shows what a poll costs in which nothing has changed.
    """
    process.collect_seldom()  # as the leg's process does
    count = min(place.bars, 100_000)
    now = dt.datetime.now(dt.UTC)
    ready = list(messages(count, 250, now - dt.timedelta(days=1)))
    bars = [bar for record in ready if isinstance(bar := decode(record.value, now), Bar)]
    place.fill("ingested", 0)
    client: dict[str, Any] = {"bootstrap.servers": place.kafka.address}
    ours, alone, unchanged = [], [], []
    for number in range(rounds):
        producer = Producer({**client, "acks": "all", "enable.idempotence": True, "linger.ms": 5, "compression.type": "zstd"})
        began = time.perf_counter()
        for record in ready:
            while True:
                try:
                    producer.produce("ingested", record.value, record.key)
                    break
                except BufferError:
                    producer.poll(0.01)
        producer.flush()
        alone.append(time.perf_counter() - began)
        published = Published(place.folder / f"published{number}.sqlite", "bench", lambda ends: True)
        sink = KafkaSink(client, "ingested", stop=threading.Event(), ahead_from=AHEAD_FROM, on_written=published.written)
        writer = sink.build_part("", "0", None)
        began = time.perf_counter()
        for first in range(0, count, BATCH):
            stamped = published.stamp(published.changed(bars[first : first + BATCH]), now)
            writer.write_batch([to_records(stamped)])
        writer.snapshot()
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        for first in range(0, count, BATCH):
            if published.changed(bars[first : first + BATCH]):
                raise RuntimeError("a bar that has not changed is taken for a new one")
        unchanged.append((time.perf_counter() - began) / count * 1e6)
    ratio = statistics.median(b / a for a, b in zip(ours, alone, strict=True))
    rate, peer = count / statistics.median(ours), count / statistics.median(alone)
    return [
        Row("ingest", "new bars to Kafka, beside a bare produce loop", rate, "bars/s", peer, ratio, ">= 0.6x", ratio >= 0.6),
        Row("ingest", "a polled bar that has not changed", statistics.median(unchanged), "us"),
    ]

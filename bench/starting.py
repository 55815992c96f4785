"""What a leg's start costs, and its idleness."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from bench.place import TOPIC, Place, Row
from bench.process import Started, leg, until


def start(place: Place, rounds: int) -> list[Row]:
    """A live leg's start until its first batch can be queried, beside a bare client's first messages as a new group."""
    ours, alone, cpus = [], [], []
    for number in range(rounds):
        name = f"start{number}"
        began = time.perf_counter()
        _first_messages(place, f"bare{number}")
        alone.append(time.perf_counter() - began)
        place.make_bucket(name)
        query = f'from(bucket: "{name}") |> range(start: -30d) |> filter(fn: (r) => r._field == "close") |> limit(n: 1)'
        usage = until(leg("live"), place.settings(name), lambda query=query: bool(place.query(query)))  # type: ignore[misc]
        ours.append(usage.wall_seconds)
        cpus.append(usage.cpu_seconds)
    over = statistics.median(a - b for a, b in zip(ours, alone, strict=True))
    return [
        Row(
            "start", "to the first batch in InfluxDB, beside a bare client's group", statistics.median(ours), "s",
            statistics.median(alone), None, "<= 1 s over it", over <= 1,
        ),
        Row("start", "CPU until then", statistics.median(cpus), "s"),
    ]  # fmt: skip


def _first_messages(place: Place, group: str) -> None:
    """A bare client asks for its group's offsets, and reads until it gets something."""
    consumer = Consumer({"bootstrap.servers": place.kafka.address, "group.id": group, "enable.auto.commit": False})
    partitions = [TopicPartition(TOPIC, p) for p in consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions]
    consumer.committed(partitions, timeout=10)
    consumer.assign([TopicPartition(TOPIC, t.partition, OFFSET_BEGINNING) for t in partitions])
    while not consumer.consume(10_000, 0.01):
        pass
    consumer.close()


def idle(place: Place, seconds: float) -> list[Row]:
    """CPU of the three legs with no data, once they have read what there is."""
    place.fill("quiet", 16, symbols=16)
    path = place.folder / "no_bars.csv"
    path.write_text("symbol,interval,datetime,open,high,low,close,volume\n")
    source = {"EGX_SOURCE__KIND": "replay", "EGX_SOURCE__REPLAY__PATH": str(path), "EGX_SOURCE__FOLLOW": "true"}
    legs = {"ingest": source, "live": {}, "archive": {}}
    with ExitStack() as stack:
        started = [
            stack.enter_context(Started(leg(name, "-s", "1"), place.settings(f"idle-{name}", "quiet") | more))
            for name, more in legs.items()
        ]
        for name, process in zip(legs, started, strict=True):
            if name != "ingest":
                process.wait_for(place.all_committed(f"idle-{name}", "quiet"))
        time.sleep(2)
        before, began = [process.cpu_seconds() for process in started], time.monotonic()
        time.sleep(seconds)
        used = [process.cpu_seconds() - start for process, start in zip(started, before, strict=True)]
        percent = sum(used) / (time.monotonic() - began) * 100
        for process in started:
            process.look()
    return [
        Row("idle", "CPU of three legs", percent, "% of a core", None, None, "<= 2 %", percent <= 2),
        Row("idle", "memory of three legs", sum(process.peak_mb for process in started), "MB"),
    ]

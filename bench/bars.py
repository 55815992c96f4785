"""Topics full of ready 1-minute bars."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Iterator

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from connectors.kafka import Record, Writer
from dataflows.bar import Bar, encode

MINUTE = dt.timedelta(minutes=1)
SYMBOLS = 250


def messages(count: int, symbols: int, start: dt.datetime) -> Iterator[Record]:
    """Bars of `symbols` symbols, minute by minute from `start`, one of each a minute; deterministic."""
    chance = random.Random(1)
    stamp = dt.datetime.now(dt.UTC)
    for number in range(count):
        price = round(chance.uniform(10, 500), 2)
        symbol = f"S{number % symbols:05d}"
        bar = Bar(
            symbol, "EGX", "1 Minute", start + number // symbols * MINUTE,
            price, round(price * 1.002, 2), round(price * 0.998, 2), round(price * 1.001, 2), chance.randrange(100, 900_000),
            stamp + dt.timedelta(microseconds=number), "bench", True,
        )  # fmt: skip
        yield Record(symbol.encode(), encode(bar))


def fill(
    bootstrap: str, topic: str, count: int, *, symbols: int = SYMBOLS, partitions: int = 4, compression: str = "lz4"
) -> dt.datetime:
    """Makes the topic and writes the bars, up to those of the minute before the last. Returns the time of the first."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)]).values():
        future.result(30)
    now = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
    writer = Writer({"bootstrap.servers": bootstrap, "compression.type": compression}, topic, stop=threading.Event())
    start = now - (count // symbols + 1) * MINUTE
    writer.write(messages(count, symbols, start))
    return start

"""The dead letters: what was rejected, why and where from; and publishing them again after a fix.

    python -m dataflows.dead_letters              # list those that are open
    python -m dataflows.dead_letters --replay     # publish them again, each once

A replayed message names in its headers the legs that had rejected it, and only these take it up: a bar that the archive has
and InfluxDB refused does not come into the archive twice. The message and the note that the letter is replayed are written
in one Kafka transaction, so that neither is ever there without the other. A replayed bar comes last in the topic's order: where a
newer version was published in the meantime, have the source publish that again.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition
from rich.console import Console
from rich.table import Table

from connectors.errors import ConnectorError, TransientError
from connectors.kafka import CONNECT_SECONDS, Client, headers
from dataflows import process
from dataflows.bar import Rejected, decode
from dataflows.messages import LEGS_HEADER
from dataflows.settings import EMBEDDED, Settings, SettingsError, load

REPLAYED = "replayed"
Origin = tuple[str, int, int]
"""Topic, partition and offset of a rejected message."""


@dataclass
class Letter:
    """A rejected message, which several legs may have rejected, and a leg more than once."""

    origin: Origin
    key: bytes | None
    value: bytes
    errors: dict[str, str] = field(default_factory=dict)
    """Leg -> its reason."""
    at: dt.datetime | None = None


def read(client: Client, topic: str, starts: Mapping[int, int] | None = None) -> Iterator[Message]:
    """The messages of a topic to what is its end now, partition by partition; committed ones only.

    :arg starts: partition -> the offset to begin at, or the oldest that is left; by default all there is.
    """
    consumer = Consumer(
        {
            **client,
            "group.id": "egx-dead-letters",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 2,
        }
    )
    try:
        metadata = consumer.list_topics(topic, timeout=CONNECT_SECONDS).topics[topic]
        if metadata.error is not None:
            return  # nothing was ever rejected
        open_partitions = set(metadata.partitions)
        begin = starts or {}
        consumer.assign([TopicPartition(topic, n, begin.get(n, OFFSET_BEGINNING)) for n in open_partitions])
        deadline = time.monotonic() + 60
        while open_partitions:
            message = consumer.poll(1.0)
            if message is None:
                if time.monotonic() > deadline:
                    raise TransientError(f"Kafka did not give {topic} to its end within a minute: try again")
                continue
            deadline = time.monotonic() + 60
            if (error := message.error()) is None:
                yield message
            elif error.name() == "_PARTITION_EOF":
                open_partitions.discard(message.partition() or 0)
            else:
                raise KafkaException(error)
    except KafkaException as error:
        raise TransientError(f"cannot read {topic} at {client['bootstrap.servers']}: {error.args[0].str()}") from None
    finally:
        consumer.close()


def open_letters(messages: Iterator[Message]) -> list[Letter]:
    """The letters that were not replayed yet, each once, in the order of their origins."""
    letters: dict[Origin, Letter] = {}
    replayed: set[tuple[Origin, str]] = set()
    for message in messages:
        named = headers(message)
        try:
            origin = (named["topic"], int(named["partition"]), int(named["offset"]))
            leg = named["leg"]
        except (KeyError, ValueError):
            continue  # not one of ours
        if REPLAYED in named:
            replayed.update((origin, name) for name in leg.split(","))
            continue
        letter = letters.setdefault(origin, Letter(origin, message.key(), message.value() or b""))
        letter.errors[leg] = named.get("error", "")
        letter.at = dt.datetime.fromtimestamp(message.timestamp()[1] / 1000, dt.UTC)
    for letter in letters.values():
        letter.errors = {leg: why for leg, why in letter.errors.items() if (letter.origin, leg) not in replayed}
    return sorted((letter for letter in letters.values() if letter.errors), key=lambda letter: letter.origin)


def still_rejected(letter: Letter, now: dt.datetime) -> bool:
    """Whether today's code would reject it as it did."""
    return isinstance(decode(letter.value, now), Rejected)


def replay(client: Client, settings: Settings, chosen: Callable[[list[Letter]], list[Letter]]) -> tuple[int, int]:
    """Publishes open letters again and notes that they are, all in one transaction.

    The letters are read inside of the fence that the transactional id puts up: another replay that has begun is ended by this
    one, and one that has finished is seen.

    :arg chosen: which of the open letters.
    :returns: how many were replayed, and how many are left.
    :raises TransientError: nothing was published, or it is not known: look at the list again.
    """
    producer = Producer({**client, "transactional.id": "egx-dead-letters", "message.max.bytes": 10_485_760, "log_level": 2})
    try:
        producer.init_transactions(30)
        letters = open_letters(read(client, settings.kafka.dead_letter_topic))
        again = chosen(letters)
        if not again:
            return 0, len(letters)
        producer.begin_transaction()
        for letter in again:
            topic, partition, offset = letter.origin
            legs = ",".join(sorted(letter.errors)).encode()
            note: Any = [
                ("leg", legs),
                ("topic", topic.encode()),
                ("partition", str(partition).encode()),
                ("offset", str(offset).encode()),
                (REPLAYED, b"1"),
            ]
            producer.produce(settings.kafka.topic, letter.value, letter.key, headers=[(LEGS_HEADER, legs)])
            producer.produce(settings.kafka.dead_letter_topic, b"", letter.key, headers=note)
            producer.poll(0)
        producer.commit_transaction(60)
    except (KafkaException, BufferError) as error:
        reason = error.args[0].str() if isinstance(error, KafkaException) else error
        raise TransientError(
            f"the replay did not finish ({reason}): list the letters again, to see which are still open"
        ) from None
    return len(again), len(letters) - len(again)


def table(letters: Sequence[Letter], now: dt.datetime) -> Table:
    made = Table(title=f"{len(letters)} open dead letters", pad_edge=False)
    for header in ("Rejected at (UTC)", "Origin", "Leg", "Reason", "Message"):
        made.add_column(header, overflow="fold")
    for letter in letters:
        text = letter.value[:80].decode(errors="backslashreplace") + ("..." if len(letter.value) > 80 else "")
        fixed = "" if still_rejected(letter, now) else "\n[green]decodes now[/]"
        made.add_row(
            f"{letter.at:%Y-%m-%d %H:%M:%S}" if letter.at else "",
            "{}[{}]@{}".format(*letter.origin),
            ", ".join(sorted(letter.errors)),
            "\n".join(sorted(set(letter.errors.values()))) + fixed,
            text,
        )
    return made


def main(arguments: Sequence[str], settings: Settings, console: Console) -> int:
    """The exit status: 1 where dead letters stay open, so that monitoring can ask."""
    parser = argparse.ArgumentParser(prog="python -m dataflows.dead_letters", description="List or replay dead letters.")
    parser.add_argument("--replay", action="store_true", help="publish the open letters again, each once")
    parser.add_argument("--all", action="store_true", help="with --replay: also those that would be rejected again")
    parser.add_argument("--json", action="store_true", help="list as JSON, a letter a line")
    chosen = parser.parse_args(arguments)
    if settings.kafka.bootstrap_servers == EMBEDDED:
        raise SettingsError("the in-process broker keeps no dead letters: set kafka.bootstrap_servers to a real one")
    client, now = process.kafka_client(settings), process.now()
    if chosen.replay:
        # A letter that InfluxDB refused decodes well: it is replayed too, for whatever was wrong was wrong there.
        replayed, left = replay(
            client, settings, lambda letters: [one for one in letters if chosen.all or not still_rejected(one, now)]
        )
        console.print(f"replayed {replayed} dead letters" + (f", left {left} that are still rejected" if left else ""))
        return 1 if left else 0
    letters = open_letters(read(client, settings.kafka.dead_letter_topic))
    if chosen.json:
        for letter in letters:
            topic, partition, offset = letter.origin
            origin = {"topic": topic, "partition": partition, "offset": offset, "errors": letter.errors}
            print(json.dumps({**origin, "value": letter.value.decode(errors="backslashreplace")}))
    elif letters:
        console.print(table(letters, now))
    else:
        console.print("no open dead letters")
    return 1 if letters else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:], load(), Console(width=None if sys.stdout.isatty() else 160)))
    except (SettingsError, ConnectorError) as error:
        sys.exit(f"egx: {error}")

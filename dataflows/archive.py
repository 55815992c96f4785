"""The archive leg: Kafka -> every version of every bar, for ever, as objects of one record a line.

python -m bytewax.run dataflows.archive
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from connectors.objects import Directory, ObjectSink, Piece
from dataflows import process
from dataflows.bar import EARLIEST, Bar, canonical
from dataflows.messages import Decoded, dead_letters, decode
from dataflows.process import Run
from dataflows.settings import Settings

if TYPE_CHECKING:
    from connectors.s3 import Bucket

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def archive(flow: Dataflow, run: Run) -> None:
    """Adds the leg to a flow."""
    chunks = op.input("archive_kafka", flow, run.kafka_source("archive"))
    decoded = op.map_value("archive_decode", chunks, lambda chunk: decode(chunk, "archive", process.now()))
    pieces = op.map_value("archive_pieces", decoded, to_pieces(run.settings.archive.block_messages))
    op.output("archive_objects", pieces, object_sink(run))
    rejected = op.filter_map_value("archive_rejected", decoded, dead_letters("archive"))
    op.output("archive_dead_letters", rejected, run.dead_letter_sink("archive"))


def to_pieces(block_messages: int) -> Callable[[Decoded], list[Piece]]:
    """A function of a decoded chunk to its records, by the objects they belong to.

    An object is `date=.../symbol=.../HHMMSSffffff-<partition>-<offset>.json`: date and time are its first record's ingestion
    time in UTC, the offset is that record's.
    """

    def pieces(decoded: Decoded) -> list[Piece]:
        of: dict[tuple[dt.date, str, int], tuple[str, list[bytes]]] = {}
        for bar, message in decoded.bars:
            at = ingested(bar, message)
            offset = message.offset() or 0
            key = (at.date(), bar.symbol, offset // block_messages)
            if key not in of:
                of[key] = f"{at:%H%M%S%f}-{decoded.partition}-{offset:018d}.json", []
            of[key][1].append(canonical(message.value() or b"", bar, at))
        return [
            Piece(f"date={date}/symbol={symbol}", decoded.partition, block, name, lines)
            for (date, symbol, block), (name, lines) in sorted(of.items(), key=lambda item: item[0][2])
        ]

    return pieces


def ingested(bar: Bar, message: Message) -> dt.datetime:
    """When the bar was published: as it says itself, else as Kafka says, whose time a producer may have set to anything."""
    if bar.ingestion_timestamp is not None:
        return bar.ingestion_timestamp
    kind, milliseconds = message.timestamp()
    try:
        time = _EPOCH + dt.timedelta(milliseconds=milliseconds)
    except OverflowError:
        return bar.datetime
    return bar.datetime if kind == TIMESTAMP_NOT_AVAILABLE or time < EARLIEST else time


def object_sink(run: Run) -> ObjectSink:
    run.check(lambda: store(run.settings))

    leg = run.metrics.legs["archive"]

    def count(lines: int) -> None:
        run.progress.archived += lines
        leg.wrote(lines)

    sink = ObjectSink(
        lambda: store(run.settings),
        stop=run.stop,
        partitions=run.settings.kafka.readers,
        parallel=run.settings.archive.parallel,
        retry_seconds=run.settings.retry_seconds,
        on_written=count,
        on_retry=lambda: leg.count(retries=1),
        extra={"leg": "archive"},
    )
    guarded: ObjectSink = run.guard(
        run.metrics.sink(
            "archive", sink, published, size=lambda pieces: sum(len(p.lines) for p in pieces), durable_at_snapshot=True
        )
    )
    return guarded


def published(pieces: Sequence[Piece]) -> dt.datetime:
    """The ingestion time of a chunk's oldest record, as the names of its pieces say."""
    day, time = min((piece.folder[5:15], piece.name[:12]) for piece in pieces)
    return dt.datetime.strptime(day + time, "%Y-%m-%d%H%M%S%f").replace(tzinfo=dt.UTC)


def store(settings: Settings) -> Directory | Bucket:
    """The archive of the settings."""
    _, separator, rest = settings.archive.url.partition("s3://")
    if not separator:
        return Directory(Path(settings.path(settings.archive.url)))
    from connectors.s3 import Bucket  # here, for those who want it: boto3's import is half of a leg's start

    bucket, _, prefix = rest.partition("/")
    s3 = settings.archive.s3
    return Bucket(
        bucket,
        prefix.rstrip("/") + "/" if prefix.strip("/") else "",
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        storage_class=s3.storage_class,
        encryption=s3.encryption,
        kms_key_id=s3.kms_key_id,
        parallel=settings.archive.parallel,
    )


def flow() -> Dataflow:
    return process.start(archive=archive)

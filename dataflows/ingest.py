"""The ingest leg: a source of bars -> Kafka, new and changed bars only.

python -m bytewax.run dataflows.ingest
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors import kafka
from connectors.kafka import KafkaSink, Record
from connectors.polling import Poll, PollingSource
from dataflows import process, sources
from dataflows.bar import Bar, encode
from dataflows.process import Run
from dataflows.published import Published

AHEAD_FROM = 1000  # records; a backlog comes in larger batches, what is new of a poll seldom does


def ingest(flow: Dataflow, run: Run, poll: Poll[Bar] | None = None, *, again: bool = False) -> None:
    """Adds the leg to a flow.

    :arg poll: what to poll, by default the source of the settings.
    :arg again: publish what was published before, too.
    """
    published = memory(run)
    bars = op.input("ingest_source", flow, source(run, poll))
    changed = op.map_value("ingest_changed", bars, run.failing(lambda batch: changes(run, published, batch, again=again)))
    stamped = op.map_value("ingest_stamp", changed, lambda batch: published.stamp(batch, process.now()))
    records = op.map_value("ingest_encode", stamped, to_records)
    op.output("ingest_kafka", records, kafka_sink(run, published))


def changes(run: Run, published: Published, batch: Sequence[Bar], *, again: bool = False) -> list[Bar]:
    new = published.changed(batch, again=again)
    run.progress.unchanged += len(batch) - len(new)
    run.metrics.legs["ingest"].count(unchanged=len(batch) - len(new))
    return new


def to_records(bars: Sequence[Bar]) -> list[Record]:
    """The bars as messages, keyed by symbol: a symbol's bars stay in order."""
    return [Record(bar.symbol.encode(), encode(bar)) for bar in bars]


def source(run: Run, poll: Poll[Bar] | None = None) -> PollingSource[Bar]:
    if poll is None:
        poll, run.progress.source = sources.build(run.settings)

    def count(batch: Sequence[Bar]) -> None:
        run.progress.polled += len(batch)

    polling = PollingSource(
        poll,
        stop=run.stop,
        ready=run.handover.ready,
        on_batch=count,
        on_end=run.handover.source_ended,
        wait_seconds=run.wait_seconds,
    )
    guarded: PollingSource[Bar] = run.guard(run.metrics.source("ingest", polling, len))
    return guarded


def memory(run: Run) -> Published:
    """What was published before, to the same place: a broker's topic, or, in one process, the stores behind it."""
    settings = run.settings
    stores = [settings.live.sqlite] if settings.live.store == "sqlite" else []
    if "://" not in settings.archive.url:
        stores.append(Path(settings.archive.url))
    if run.broker is None:
        target = f"{kafka.cluster_id(run.client)}/{settings.kafka.topic}"
    else:
        live = settings.path(settings.live.sqlite) if settings.live.store == "sqlite" else settings.influxdb.url
        target = f"{live} {settings.archive.url}"
    published = Published(settings.path(settings.ingest.state), target, run.handover.durable)
    if run.broker is not None and not all(settings.path(store).exists() for store in stores):
        published.forget()  # the stores were removed
    return published


def kafka_sink(run: Run, published: Published) -> KafkaSink:
    def written(count: int, ends: Mapping[int, int]) -> None:
        run.handover.written(ends)
        published.written(count, ends)
        run.progress.published += count
        run.metrics.legs["ingest"].wrote(count)

    run.handover.on_committed = published.note
    sink = KafkaSink(
        run.client,
        run.settings.kafka.topic,
        stop=run.stop,
        retry_seconds=run.settings.retry_seconds,
        ahead_from=AHEAD_FROM if run.alone else math.inf,
        on_written=written,
    )
    guarded: KafkaSink = run.guard(run.metrics.sink("ingest", sink))
    return guarded


def flow() -> Dataflow:
    return process.start(ingest=ingest)

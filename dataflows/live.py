"""The live leg: Kafka -> the live store, which holds the latest version of each bar.

python -m bytewax.run dataflows.live
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow

from connectors.influxdb import InfluxDBSink, Point, Refused, series
from connectors.kafka import Writer
from connectors.sqlite import SqliteSink, Table, open_table
from dataflows import process
from dataflows.bar import Bar
from dataflows.messages import Decoded, dead_letter, dead_letters, decode
from dataflows.process import Run

MEASUREMENT = "stock_price"
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
TABLE = Table(
    MEASUREMENT,
    {
        "exchange": "TEXT",
        "symbol": "TEXT",
        "interval": "TEXT",
        "datetime": "TEXT",
        "open": "REAL",
        "high": "REAL",
        "low": "REAL",
        "close": "REAL",
        "volume": "INTEGER",
        "is_final": "INTEGER",
        "ingestion_timestamp": "TEXT",
        "source": "TEXT",
    },
    key=4,
)


def live(flow: Dataflow, run: Run) -> None:
    """Adds the leg to a flow."""
    chunks = op.input("live_kafka", flow, run.kafka_source("live"))
    decoded = op.map_value("live_decode", chunks, lambda chunk: decode(chunk, "live", process.now()))
    if run.settings.live.store == "influxdb":
        points = op.map_value("live_points", decoded, to_points)
        op.output("live_influxdb", points, influxdb_sink(run))
    else:
        rows = op.map_value("live_rows", decoded, to_rows)
        op.output("live_sqlite", rows, sqlite_sink(run))
    rejected = op.filter_map_value("live_rejected", decoded, dead_letters("live"))
    op.output("live_dead_letters", rejected, run.dead_letter_sink("live"))


def to_points(decoded: Decoded) -> list[Point]:
    """The bars as points of InfluxDB, in order; a bar without any value is none."""
    return [
        Point(bar_series(bar.symbol, bar.exchange, bar.interval), values, (bar.datetime - _EPOCH) // _MICROSECOND, message)
        for (bar, message), values in zip(decoded.bars, bar_fields([bar for bar, _ in decoded.bars]), strict=True)
        if values
    ]


@lru_cache(maxsize=65_536)
def bar_series(symbol: str, exchange: str, interval: str) -> bytes:
    return series(MEASUREMENT, {"symbol": symbol, "exchange": exchange, "interval": interval})


class _Fields(msgspec.Struct, omit_defaults=True, gc=False):
    open: float | None = None
    high: float | None = None
    low: float | None = None
    close: float | None = None
    volume: str | None = None
    is_final: bool | None = None


_encoder: Final = msgspec.json.Encoder()
_TO_FIELDS: Final = bytes.maketrans(b":", b"=")


def bar_fields(bars: Sequence[Bar]) -> list[bytes]:
    """Each bar's values as line protocol's fields, those that are absent left out.

    They are written as JSON and then trimmed, all at once: JSON's numbers are line protocol's, and msgspec writes four floats
    in the time in which Python writes one.
    """
    values = [
        _Fields(bar.open, bar.high, bar.low, bar.close, None if bar.volume is None else f"{bar.volume}i", bar.is_final)
        for bar in bars
    ]
    return _encoder.encode_lines(values).translate(_TO_FIELDS, b'{"').split(b"}\n")[:-1]


def to_rows(decoded: Decoded) -> list[tuple[object, ...]]:
    """The bars as rows of `TABLE`, in order; times as ISO 8601 in UTC."""
    return [
        (
            bar.exchange,
            bar.symbol,
            bar.interval,
            bar.datetime.isoformat(),
            bar.open,
            bar.high,
            bar.low,
            bar.close,
            bar.volume,
            bar.is_final,
            bar.ingestion_timestamp.isoformat() if bar.ingestion_timestamp else None,
            bar.source,
        )
        for bar, _ in decoded.bars
    ]


def sqlite_sink(run: Run) -> SqliteSink:
    path = run.settings.path(run.settings.live.sqlite)
    run.check(lambda: open_table(path, TABLE).close())

    def count(rows: int) -> None:
        run.progress.live += rows
        run.metrics.legs["live"].wrote(rows)

    sink: SqliteSink = run.guard(
        run.metrics.sink(
            "live",
            SqliteSink(
                path,
                TABLE,
                stop=run.stop,
                retry_seconds=run.settings.retry_seconds,
                on_written=count,
                on_retry=lambda: run.metrics.legs["live"].count(retries=1),
                extra={"leg": "live"},
            ),
            published_row,
        )
    )
    return sink


def published_row(rows: Sequence[tuple[Any, ...]]) -> dt.datetime | None:
    """The ingestion time of a chunk's first, and so oldest, row of `TABLE`."""
    return dt.datetime.fromisoformat(rows[0][10]) if rows[0][10] else None


def published_point(points: Sequence[Point]) -> dt.datetime:
    """The time at which a chunk's first, and so oldest, point was published, as Kafka says."""
    return _EPOCH + dt.timedelta(milliseconds=points[0].origin.timestamp()[1])


def influxdb_sink(run: Run) -> InfluxDBSink:
    settings = run.settings
    writer: Writer | None = None
    leg = run.metrics.legs["live"]
    run.check(lambda: process.influxdb(settings).retention_seconds())

    def count(points: int) -> None:
        run.progress.live += points
        leg.wrote(points)

    def expired(points: int) -> None:
        run.progress.expired += points
        leg.count(expired=points)

    def refused(point: Refused) -> None:
        nonlocal writer
        if writer is None:
            writer = Writer(
                run.client,
                settings.kafka.dead_letter_topic,
                stop=run.stop,
                retry_seconds=settings.retry_seconds,
            )
        writer.write([dead_letter("live", point.origin, point.reason)])
        run.progress.rejected += 1
        leg.count(rejected=1)

    sink = InfluxDBSink(
        lambda: process.influxdb(settings),
        stop=run.stop,
        partitions=settings.kafka.readers,
        batch_points=settings.influxdb.batch_points,
        retry_seconds=settings.retry_seconds,
        on_written=count,
        on_expired=expired,
        on_retry=lambda: leg.count(retries=1),
        extra={"leg": "live"},
        on_refused=refused,
    )
    guarded: InfluxDBSink = run.guard(run.metrics.sink("live", sink, published_point))
    return guarded


def flow() -> Dataflow:
    return process.start(live=live)

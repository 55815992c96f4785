"""The archive leg on a backlog."""

from __future__ import annotations

import math
import re
import statistics
import time
from dataclasses import dataclass

import boto3
import urllib3

from bench.place import TOPIC, Place, Row, in_turn, seldom
from bench.process import Usage, leg, until
from dataflows import process
from tests.servers.legs import ends
from tests.servers.process import free_port

_http = urllib3.PoolManager(retries=False, timeout=10)


NARROW_BLOCK = 65_536
"""Offsets; the backlog has more than two a partition."""


def against_consuming(place: Place, rounds: int) -> list[Row]:
    """The archive leg -> S3, until it has read all and, told to end, has written and committed it, against consuming alone.

    With blocks as they are by default, which hold the backlog, and with some that end within its epoch.
    """
    process.collect_seldom()  # as the leg's process does
    alone, tuned = [], []
    ours: list[_Run] = []
    narrow: list[_Run] = []

    def run_alone(number: int) -> None:
        began = time.perf_counter()
        place.consume(f"alone{number}")
        alone.append(time.perf_counter() - began)
        began = time.perf_counter()
        place.consume(f"tuned{number}", **{"fetch.queue.backoff.ms": 10})
        tuned.append(time.perf_counter() - began)

    def run_ours(number: int) -> None:
        ours.append(_run(place, f"archive{number}"))
        narrow.append(_run(place, f"narrow{number}", EGX_ARCHIVE__BLOCK_MESSAGES=str(NARROW_BLOCK)))

    in_turn(rounds, run_ours, run_alone)
    peer = place.bars / statistics.median(alone)

    def rate(measure: str, runs: list[_Run], goal: str = "") -> Row:
        ratio = statistics.median(b / run.usage.wall_seconds for run, b in zip(runs, alone, strict=True))
        median = place.bars / statistics.median(run.usage.wall_seconds for run in runs)
        return Row("archive", measure, median, "bars/s", peer, ratio, goal, ratio >= 0.5 if goal else None)

    def objects(measure: str, run: _Run, most: int, goal: str = "") -> Row:
        many = len(run.objects)
        return Row("archive", measure, many, "objects", most, many / most, goal, many <= most if goal else None)

    cpu = statistics.median(run.usage.cpu_seconds for run in ours) / place.bars * 1e6
    last, last_narrow = ours[-1], narrow[-1]
    blocks = last_narrow.one_each() + _blocks_ended(place, last_narrow.objects, NARROW_BLOCK)
    return [
        rate("backlog to S3, beside consuming alone", ours, ">= 0.5x"),
        Row("archive", "consuming alone, a full queue stops it for 10 ms", place.bars / statistics.median(tuned), "bars/s"),
        Row("archive", "CPU a bar, until all is read", cpu, "us"),
        Row("archive", "peak memory", max(run.usage.peak_mb for run in ours), "MB"),
        objects("objects, beside one a symbol and epoch", last, last.one_each(), "<= 1x"),
        rate(f"blocks of {NARROW_BLOCK:,}: backlog to S3", narrow),
        Row("archive", f"blocks of {NARROW_BLOCK:,}: peak memory", max(run.usage.peak_mb for run in narrow), "MB"),
        objects(f"blocks of {NARROW_BLOCK:,}: objects, beside one more where one ends", last_narrow, blocks),
    ]


@dataclass
class _Run:
    """What the leg took, its epochs, and the (symbol, partition) of each object."""

    usage: Usage
    epochs: int
    objects: list[tuple[str, int]]

    def one_each(self) -> int:
        """How many objects one a symbol and epoch would be."""
        return self.epochs * len({symbol for symbol, _ in self.objects})


def _run(place: Place, name: str, **settings: str) -> _Run:
    metrics = _Metrics()
    usage = until(
        leg("archive"),
        place.settings(name, EGX_METRICS__PORT=str(metrics.port), **settings),
        seldom(lambda: metrics.value("egx_records_read_total") == place.bars, 0.05),
        and_ended=True,
    )
    if not place.all_committed(name)():
        raise RuntimeError("the archive leg ended without having committed everything")
    # At the time of the last look the last epoch was still open.
    return _Run(usage, int(metrics.last("egx_write_batch_records_count")) + 1, _objects(place, name))


def _blocks_ended(place: Place, objects: list[tuple[str, int]], block: int) -> int:
    """How often a block of offsets ends within an epoch, once for each symbol of its partition."""
    symbols: dict[int, set[str]] = {}
    for symbol, partition in objects:
        symbols.setdefault(partition, set()).add(symbol)
    return sum(
        len(symbols[partition]) * (math.ceil(end / block) - 1)
        for partition, end in ends(place.kafka.address, TOPIC).items()
        if partition in symbols
    )


def _objects(place: Place, bucket: str) -> list[tuple[str, int]]:
    """(symbol, partition) of each object."""
    environment = place.s3.environment()
    client = boto3.client(
        "s3",
        endpoint_url=place.s3.url,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    found = [re.search(r"symbol=([^/]+)/\d+-(\d+)-\d+\.json$", key) for key in keys]
    return [(match[1], int(match[2])) for match in found if match]


class _Metrics:
    """A process's metrics, as Prometheus gets them."""

    def __init__(self) -> None:
        self.port, self._seen = free_port(), ""

    def value(self, name: str) -> float:
        """The value now, 0 while nobody answers."""
        try:
            self._seen = _http.request("GET", f"http://127.0.0.1:{self.port}/metrics").data.decode()
        except urllib3.exceptions.HTTPError:
            return 0
        return self.last(name)

    def last(self, name: str) -> float:
        """The value when last asked."""
        found = re.search(rf"^{name}(?:{{.*?}})? (\S+)$", self._seen, re.MULTILINE)
        return float(found[1]) if found else 0

"""The archive leg on a backlog."""

from __future__ import annotations

import math
import re
import statistics
import time

import boto3
import urllib3

from bench.place import TOPIC, Place, Row, in_turn, seldom
from bench.process import leg, until
from dataflows import process
from dataflows.settings import Archive
from tests.servers.legs import ends
from tests.servers.process import free_port

_http = urllib3.PoolManager(retries=False, timeout=10)


def against_consuming(place: Place, rounds: int) -> list[Row]:
    """The archive leg -> S3, until it has read all and, told to end, has written and committed it, against consuming alone."""
    process.collect_seldom()  # as the leg's process does
    alone, tuned, ours, peaks, cpus = [], [], [], [], []
    last: list[tuple[str, int]] = []

    def run_alone(number: int) -> None:
        began = time.perf_counter()
        place.consume(f"alone{number}")
        alone.append(time.perf_counter() - began)
        began = time.perf_counter()
        place.consume(f"tuned{number}", **{"fetch.queue.backoff.ms": 10})
        tuned.append(time.perf_counter() - began)

    def run_ours(number: int) -> None:
        name, metrics = f"archive{number}", _Metrics()
        usage = until(
            leg("archive"),
            place.settings(name, EGX_METRICS__PORT=str(metrics.port)),
            seldom(lambda: metrics.value("egx_records_read_total") == place.bars, 0.05),
            and_ended=True,
        )
        if not place.all_committed(name)():
            raise RuntimeError("the archive leg ended without having committed everything")
        ours.append(usage.wall_seconds)
        peaks.append(usage.peak_mb)
        cpus.append(usage.cpu_seconds / place.bars * 1e6)
        # At the time of the last look the last epoch was still open.
        last[:] = [(name, int(metrics.last("egx_write_batch_records_count")) + 1)]

    in_turn(rounds, run_ours, run_alone)
    ((name, epochs),) = last
    ratio = statistics.median(b / a for a, b in zip(ours, alone, strict=True))
    rate, peer = place.bars / statistics.median(ours), place.bars / statistics.median(alone)
    objects = _objects(place, name)
    most = epochs * len({symbol for symbol, _ in objects})
    with_blocks = most + _blocks_ended(place, objects)
    many, few = len(objects), len(objects) <= most
    return [
        Row("archive", "backlog to S3, beside consuming alone", rate, "bars/s", peer, ratio, ">= 0.5x", ratio >= 0.5),
        Row(
            "archive",
            "consuming alone, where a full queue stops it for 10 ms only",
            place.bars / statistics.median(tuned),
            "bars/s",
        ),
        Row("archive", "CPU a bar, until all is read", statistics.median(cpus), "us"),
        Row("archive", "peak memory", max(peaks), "MB"),
        Row("archive", "objects, beside one a symbol and epoch", many, "objects", most, many / most, "<= 1x", few),
        Row("archive", "and one more where a block of offsets ends", many, "objects", with_blocks, many / with_blocks),
    ]


def _blocks_ended(place: Place, objects: list[tuple[str, int]]) -> int:
    """How often a block of offsets ends within an epoch, once for each symbol of its partition."""
    symbols: dict[int, set[str]] = {}
    for symbol, partition in objects:
        symbols.setdefault(partition, set()).add(symbol)
    block = Archive().block_messages
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

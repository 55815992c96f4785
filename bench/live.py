"""The live leg on a backlog."""

from __future__ import annotations

import datetime as dt
import gzip
import statistics
import time

import urllib3

from bench import telegraf
from bench.place import TOPIC, Place, Row, cpu_of, in_turn
from bench.process import Usage, leg, until
from connectors.influxdb import lines
from connectors.kafka import Chunk
from dataflows.live import to_points
from dataflows.messages import decode


def against_telegraf(place: Place, rounds: int) -> list[Row]:
    """The backlog -> all queryable in InfluxDB, in turn with Telegraf; whole processes, their start included."""
    program = str(telegraf.binary())
    ours: list[Usage] = []
    theirs: list[Usage] = []
    servers: dict[str, list[float]] = {"ours": [], "theirs": []}

    def run_ours(number: int) -> None:
        name = f"live{number}"
        with cpu_of(place.influxdb, servers["ours"]):
            ours.append(until(leg("live"), place.settings(name), place.queryable(name)))
        place.drop_bucket(name)

    def run_theirs(number: int) -> None:
        peer = f"telegraf{number}"
        place.make_bucket(peer)
        path = place.folder / f"{peer}.conf"
        path.write_text(
            telegraf.configuration(place.kafka.address, TOPIC, peer, place.influxdb.url, place.token, place.org, peer)
        )
        with cpu_of(place.influxdb, servers["theirs"]):
            theirs.append(until([program, "--config", str(path)], {}, place.queryable(peer)))
        place.drop_bucket(peer)

    in_turn(rounds, run_ours, run_theirs)
    faster = statistics.median(b.wall_seconds / a.wall_seconds for a, b in zip(ours, theirs, strict=True))
    rate, peer_rate = (place.bars / statistics.median(u.wall_seconds for u in usages) for usages in (ours, theirs))
    cpu, peer_cpu = (statistics.median(u.cpu_seconds for u in usages) / place.bars * 1e6 for usages in (ours, theirs))
    server, peer_server = (statistics.median(seconds) / place.bars * 1e6 for seconds in servers.values())
    peak, peer_peak = (max(u.peak_mb for u in usages) for usages in (ours, theirs))
    return [
        Row("live", "backlog to InfluxDB, beside Telegraf", rate, "bars/s", peer_rate, faster, ">= 2x", faster >= 2),
        Row("live", "CPU a bar, start included", cpu, "us", peer_cpu, cpu / peer_cpu, "<= 5 us", cpu <= 5),
        Row("live", "InfluxDB's own CPU a bar meanwhile", server, "us", peer_server),
        Row("live", "peak memory", peak, "MB", peer_peak, peak / peer_peak, "<= 250 MB", peak <= 250),
    ]


def against_ready_lines(place: Place, rounds: int) -> list[Row]:
    """The live leg against one client that sends ready gzip bodies of 5,000 lines over one connection."""
    bodies: list[bytes] = []
    now = dt.datetime.now(dt.UTC)

    def pack(chunk: Chunk) -> None:
        points = to_points(decode(chunk, "live", now))
        bodies.extend(gzip.compress(lines(points[i : i + 5000]), 1) for i in range(0, len(points), 5000))

    place.consume("pack", pack)
    ours, ready = [], []
    client = urllib3.PoolManager(retries=False)

    def run_ready(number: int) -> None:
        name = f"ready{number}"
        place.make_bucket(name)
        url = f"{place.influxdb.url}/api/v2/write?org={place.org}&bucket={name}&precision=us"
        headers = {"Authorization": f"Token {place.token}", "Content-Encoding": "gzip"}
        began = time.perf_counter()
        for body in bodies:
            answer = client.request("POST", url, body=body, headers=headers)
            if answer.status != 204:
                raise RuntimeError(f"InfluxDB answered {answer.status}: {answer.data.decode()}")
        done = place.queryable(name)
        while not done():
            time.sleep(0.02)
        ready.append(time.perf_counter() - began)
        place.drop_bucket(name)

    def run_ours(number: int) -> None:
        name = f"against_ready{number}"
        ours.append(until(leg("live"), place.settings(name), place.queryable(name)).wall_seconds)
        place.drop_bucket(name)

    in_turn(rounds, run_ours, run_ready)
    ratio = statistics.median(b / a for a, b in zip(ours, ready, strict=True))
    rate, peer = place.bars / statistics.median(ours), place.bars / statistics.median(ready)
    return [Row("live", "backlog to InfluxDB, beside ready lines", rate, "bars/s", peer, ratio, ">= 0.8x", ratio >= 0.8)]

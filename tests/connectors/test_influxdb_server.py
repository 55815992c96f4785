"""The InfluxDB output against a real server."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from influxdb_client import InfluxDBClient

from connectors.errors import PermanentError
from connectors.influxdb import InfluxDBSink, Point, Refused, Server, fields, series
from tests.crash.http_faults import HttpFaults
from tests.servers.fixtures import InfluxdbServer

NOW = int(time.time())


class Written:
    """A sink on a bucket, and what it reported."""

    def __init__(self, server: InfluxdbServer, bucket: str, *, url: str | None = None, retry_seconds: float = 20) -> None:
        self.written, self.expired, self.refused = 0, 0, list[Refused]()
        sink = InfluxDBSink(
            lambda: Server(url or server.url, server.org, bucket, server.token),
            stop=threading.Event(),
            retry_seconds=retry_seconds,
            batch_points=5000,
            on_written=lambda points: setattr(self, "written", self.written + points),
            on_expired=lambda points: setattr(self, "expired", self.expired + points),
            on_refused=self.refused.append,
        )
        self.partition = sink.build_part("step", "0", None)


def point(symbol: str, value: float | int, *, field: str = "close", seconds_ago: float = 60, origin: object = None) -> Point:
    return Point(series("m", {"symbol": symbol}), fields({field: value}), int((NOW - seconds_ago) * 1e6), origin)


def stored(server: InfluxdbServer, bucket: str) -> dict[tuple[str, str], object]:
    with InfluxDBClient(server.url, server.token, org=server.org) as client:
        tables = client.query_api().query(f'from(bucket: "{bucket}") |> range(start: -60d)')
        return {(r["symbol"], r.get_field()): r.get_value() for table in tables for r in table.records}


def test_a_missing_bucket_is_made_with_the_retention(influxdb: InfluxdbServer, unique_name: str) -> None:
    assert Server(influxdb.url, influxdb.org, unique_name, influxdb.token, retain_days=30).retention_seconds() == 30 * 86_400

    with InfluxDBClient(influxdb.url, influxdb.token, org=influxdb.org) as client:
        assert client.buckets_api().find_bucket_by_name(unique_name).retention_rules[0].every_seconds == 30 * 86_400


def test_a_bucket_that_is_there_keeps_its_retention_with_a_warning(
    influxdb: InfluxdbServer, unique_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    Server(influxdb.url, influxdb.org, unique_name, influxdb.token, retain_days=3).retention_seconds()

    with caplog.at_level(logging.WARNING):
        assert Server(influxdb.url, influxdb.org, unique_name, influxdb.token, retain_days=30).retention_seconds() == 3 * 86_400

    assert "left as it is" in caplog.text


def test_the_latest_of_a_batch_stays_and_a_replay_changes_nothing(influxdb: InfluxdbServer, unique_name: str) -> None:
    sink = Written(influxdb, unique_name)
    batch = [point("A", 1.0), point("B", 2.0), point("A", 3.0)]

    sink.partition.write_batch([batch])
    sink.partition.write_batch([batch])

    assert stored(influxdb, unique_name) == {("A", "close"): 3.0, ("B", "close"): 2.0}
    assert sink.written == 6


def test_names_that_try_to_break_out_come_back_as_they_were(influxdb: InfluxdbServer, unique_name: str) -> None:
    names = ["a b", "a,b", "a=b", "a,symbol=EVIL", 'a"b', "a\\b", "../..", "ＣＯＭＩ", "a" * 10_000]

    Written(influxdb, unique_name).partition.write_batch([[point(name, 1.0) for name in names]])

    assert {symbol for symbol, _ in stored(influxdb, unique_name)} == set(names)


def test_a_refused_point_is_isolated_with_the_reason_and_its_neighbours_are_written(
    influxdb: InfluxdbServer, unique_name: str
) -> None:
    sink = Written(influxdb, unique_name)
    sink.partition.write_batch([[point("A", 1.5, field="volume", seconds_ago=90)]])  # the field is a float from now on
    batch = [point(f"S{i}", float(i)) for i in range(100)]
    batch[37] = point("S37", 7, field="volume", origin="number 37")

    sink.partition.write_batch([batch])

    assert [(refused.origin, "conflict" in refused.reason) for refused in sink.refused] == [("number 37", True)]
    assert {symbol for symbol, field in stored(influxdb, unique_name) if field == "close"} == {f"S{i}" for i in range(100)} - {
        "S37"
    }


def test_points_older_than_the_retention_are_counted_and_not_sent(influxdb: InfluxdbServer, unique_name: str) -> None:
    sink = Written(influxdb, unique_name)

    sink.partition.write_batch([[point("OLD", 1.0, seconds_ago=31 * 86_400), point("NEW", 2.0)]])

    assert (sink.expired, sink.written, sink.refused) == (1, 2, [])
    assert stored(influxdb, unique_name) == {("NEW", "close"): 2.0}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_tried_again_after_what_it_asks_for(influxdb: InfluxdbServer, unique_name: str, status: int) -> None:
    Server(influxdb.url, influxdb.org, unique_name, influxdb.token).retention_seconds()
    proxy = HttpFaults(influxdb.url.removeprefix("http://"))
    try:
        sink = Written(influxdb, unique_name, url=f"http://{proxy.address}")
        proxy.fail(status, retry_after=1)
        healing = threading.Timer(0.3, proxy.heal)
        healing.start()
        began = time.monotonic()

        sink.partition.write_batch([[point("A", 1.0)]])

        healing.join()
        assert time.monotonic() - began >= 1
        assert proxy.answered >= 1
        assert stored(influxdb, unique_name) == {("A", "close"): 1.0}
    finally:
        proxy.close()


def test_a_wrong_token_and_a_wrong_organisation_stop_at_once_and_name_the_setting(
    influxdb: InfluxdbServer, unique_name: str
) -> None:
    with pytest.raises(PermanentError, match="EGX_INFLUXDB__TOKEN"):
        Server(influxdb.url, influxdb.org, unique_name, "wrong").retention_seconds()
    with pytest.raises(PermanentError, match=r"influxdb\.org"):
        Server(influxdb.url, "nobody", unique_name, influxdb.token).retention_seconds()
    with pytest.raises(PermanentError, match=r"influxdb\.bucket"):
        Server(influxdb.url, influxdb.org, unique_name, influxdb.token).write(b"m close=1 1")

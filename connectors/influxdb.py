"""Output into an InfluxDB 2 bucket as line protocol."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.domain.bucket import Bucket
from influxdb_client.domain.bucket_retention_rules import BucketRetentionRules
from influxdb_client.rest import ApiException
from typing_extensions import override
from urllib3.exceptions import HTTPError

from connectors.errors import PermanentError, TransientError
from connectors.retrying import Retry

log = logging.getLogger(__name__)

_ESCAPE_MEASUREMENT = str.maketrans({",": r"\,", " ": r"\ "})
_ESCAPE_TAG = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})


class Point(NamedTuple):
    """One point: its series (measurement and tags) and its fields as line protocol, its time, and where it came from.

    :arg time: microseconds since 1970, UTC.
    :arg origin: given back, should InfluxDB refuse the point.
    """

    series: bytes
    fields: bytes
    time: int
    origin: Any = None


def series(measurement: str, tags: Mapping[str, str]) -> bytes:
    """The first part of a line: measurement and tags, escaped; tags without a value are left out.

    Line protocol cannot hold a line break or a backslash at a value's end in any way: these raise ValueError.
    """
    parts = [_safe(measurement).translate(_ESCAPE_MEASUREMENT)]
    for key, value in tags.items():
        if value:
            parts.append(f"{_safe(key).translate(_ESCAPE_TAG)}={_safe(value).translate(_ESCAPE_TAG)}")
    return ",".join(parts).encode()


def _safe(text: str) -> str:
    if any(c in text for c in "\n\r\0") or text.endswith("\\"):
        raise ValueError(f"{text!r} cannot stand in line protocol: it has a line break or NUL, or ends with a backslash")
    return text


def fields(values: Mapping[str, float | int | bool | None]) -> bytes:
    """The fields of a line: floats, integers and booleans; None is left out. Empty where all are."""
    return ",".join(f"{key}={_value(value)}" for key, value in values.items() if value is not None).encode()


def _value(value: float | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value}i" if isinstance(value, int) else repr(value)


class Refused(NamedTuple):
    """A point that InfluxDB did not take, and its reason."""

    origin: Any
    reason: str


class LinesRefused(PermanentError):
    """InfluxDB does not take (some of) the lines of a request, and says why."""


class Server:
    """An InfluxDB bucket."""

    def __init__(
        self,
        url: str,
        org: str,
        bucket: str,
        token: str,
        *,
        retain_days: float = 30,
        timeout_seconds: float = 10,
        ca_file: Path | None = None,
    ) -> None:
        """Opens nothing yet. :arg retain_days: of the bucket, should it have to be made."""
        self._url, self._org, self._bucket = url, org, bucket
        self._retain_days = retain_days
        self._client = InfluxDBClient(
            url,
            token,
            org=org,
            timeout=int(timeout_seconds * 1000),
            enable_gzip=True,
            retries=False,
            ssl_ca_cert=str(ca_file) if ca_file else None,
        )
        self._write = self._client.write_api(write_options=SYNCHRONOUS)

    def retention_seconds(self) -> int | None:
        """Makes the bucket if it is missing; how long it keeps points, None for ever.

        :raises PermanentError: the token or the organisation is wrong.
        :raises TransientError: InfluxDB does not answer.
        """
        wanted = int(self._retain_days * 86_400)
        try:
            org = self._client.organizations_api().find_organizations(org=self._org)[0].id
            try:
                buckets = self._client.buckets_api().find_buckets(name=self._bucket, org_id=org).buckets
            except ApiException as error:
                if error.status != 404:
                    raise
                buckets = []
            if not buckets:
                rule = BucketRetentionRules(type="expire", every_seconds=wanted)
                self._client.buckets_api().create_bucket(Bucket(name=self._bucket, org_id=org, retention_rules=[rule]))
                log.info("made bucket %s with %g days of retention", self._bucket, self._retain_days)
                return wanted
        except ApiException as error:
            raise self._error(error) from None
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from None
        rules = buckets[0].retention_rules
        seconds: int = rules[0].every_seconds if rules else 0
        if seconds != wanted:
            log.warning(
                "bucket %s keeps points for %s, not for the %g days of influxdb.retain_days: left as it is",
                self._bucket,
                f"{seconds / 86_400:g} days" if seconds else "ever",
                self._retain_days,
            )
        return seconds or None

    def write(self, body: bytes) -> None:
        """Writes lines (times in microseconds).

        :raises LinesRefused: because of what is in the lines.
        :raises PermanentError: the token, the organisation or the bucket is wrong.
        :raises TransientError: InfluxDB is away, busy or broken.
        """
        try:
            self._write.write(self._bucket, self._org, body, write_precision="us")
        except ApiException as error:
            raise self._error(error) from None
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from None

    def query(self, flux: str) -> list[dict[str, Any]]:
        """The rows that a Flux query gives, all its tables together. Raises as `write` does."""
        try:
            return [record.values for table in self._client.query_api().query(flux) for record in table.records]
        except ApiException as error:
            raise self._error(error) from None
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> TransientError:
        return TransientError(f"InfluxDB at {self._url} does not answer ({type(error).__name__}): check influxdb.url")

    def _error(self, error: ApiException) -> Exception:
        status, message = error.status or 0, _message(error)
        if message.startswith("SSLError"):
            return PermanentError(
                f"InfluxDB at {self._url} has no certificate that is trusted: set influxdb.ca_file to its authority"
            )
        if status == 401 or status == 403:
            return PermanentError(f"InfluxDB at {self._url} refused the token ({message}): check EGX_INFLUXDB__TOKEN")
        if status == 404:
            return PermanentError(f"InfluxDB at {self._url}: {message}: check influxdb.org and influxdb.bucket")
        if status in (400, 413, 422):
            return LinesRefused(message)
        after = (error.headers or {}).get("Retry-After", "")
        return TransientError(
            f"InfluxDB at {self._url} answered {status} ({message})",
            float(after) if after.isdigit() else None,
        )

    def close(self) -> None:
        self._client.close()


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or error.body or "no reason given")[:200]


class _ServerPartition(StatefulSinkPartition[Sequence[Point], None]):
    def __init__(self, sink: InfluxDBSink) -> None:
        self._sink = sink
        self._server = sink.server()
        self._retry = Retry(sink.retry_seconds, sink.stop, on_retry=sink.on_retry)
        self._retention = self._retry(self._server.retention_seconds)

    @override
    def write_batch(self, values: list[Sequence[Point]]) -> None:
        # Of several points of one series and time, the last is the one that stays.
        points = list({(point.series, point.time): point for batch in values for point in batch}.values())
        total = sum(map(len, values))
        if self._retention is not None:
            oldest = int((self._sink.clock() - self._retention) * 1e6)
            kept = [point for point in points if point.time > oldest]
            self._sink.on_expired(len(points) - len(kept))
            points = kept
        for first in range(0, len(points), self._sink.batch_points):
            self._write(points[first : first + self._sink.batch_points])
        self._sink.on_written(total)

    def _write(self, points: Sequence[Point]) -> None:
        body = b"\n".join(b"%b %b %d" % point[:3] for point in points)
        try:
            self._retry(lambda: self._server.write(body))
        except LinesRefused as error:
            if len(points) == 1:
                self._sink.on_refused(Refused(points[0].origin, str(error)))
                return
            # Halving finds the refused ones; writing the others again changes nothing.
            self._write(points[: len(points) // 2])
            self._write(points[len(points) // 2 :])

    @override
    def snapshot(self) -> None:
        return None

    @override
    def close(self) -> None:
        self._server.close()


class InfluxDBSink(FixedPartitionedSink[Sequence[Point], None]):
    """Writes points; items are (the number of a partition, points).

    Delivery: durable when `write_batch` returns, at least once onto the point's key (series and time): the last one wins, a
    replay changes nothing. A point that InfluxDB refuses goes to `on_refused`, and its neighbours are written. Points older
    than the bucket's retention are not sent (InfluxDB would refuse them) but counted.
    """

    def __init__(
        self,
        server: Callable[[], Server],
        *,
        stop: threading.Event,
        partitions: int = 1,
        batch_points: int = 5000,
        retry_seconds: float = 300,
        on_written: Callable[[int], None] = lambda points: None,
        on_expired: Callable[[int], None] = lambda points: None,
        on_retry: Callable[[], None] = lambda: None,
        on_refused: Callable[[Refused], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        :arg server: opens the server; called when the flow starts.
        :arg batch_points: points a request.
        :arg retry_seconds: how long a request is tried again before the flow fails.
        :arg on_written: called with the number of points handed over, those included that were refused or expired.
        :arg on_retry: called before each further attempt at a request.
        :arg on_refused: must have dealt with the point when it returns.
        :arg clock: seconds since 1970.
        """
        self.server, self.stop, self.partitions, self.batch_points = server, stop, partitions, batch_points
        self.retry_seconds, self.on_written, self.on_expired = retry_seconds, on_written, on_expired
        self.on_retry, self.on_refused, self.clock = on_retry, on_refused, clock

    @override
    def list_parts(self) -> list[str]:
        return [str(partition) for partition in range(self.partitions)]

    @override
    def part_fn(self, item_key: str) -> int:
        return int(item_key)

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _ServerPartition:
        return _ServerPartition(self)

"""Output into an InfluxDB 2 bucket as line protocol."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec
import urllib3
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from isal import igzip
from typing_extensions import override

from connectors.errors import ConnectorError, PermanentError, TransientError
from connectors.retrying import Retry

log = logging.getLogger(__name__)

_ESCAPE_MEASUREMENT = str.maketrans({",": r"\,", " ": r"\ "})
_ESCAPE_TEXT = str.maketrans({'"': r"\"", "\\": r"\\"})
_ESCAPE_TAG = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})


class Point(msgspec.Struct, frozen=True, gc=False):
    """One point: its series (measurement and tags) and its fields as line protocol, its time, and where it came from.

    :arg time: microseconds since 1970, UTC.
    :arg origin: given back, should InfluxDB refuse the point.
    """

    series: bytes
    fields: bytes
    time: int
    origin: Any = None


def series(measurement: str, tags: Mapping[str, str]) -> bytes:
    """The first part of a line: measurement and tags, escaped, in the order in which InfluxDB keeps them; tags without a value
    are left out.

    Line protocol cannot hold a line break or a backslash at a value's end in any way: these raise ValueError.
    """
    parts = [_safe(measurement).translate(_ESCAPE_MEASUREMENT)]
    for key, value in sorted(tags.items()):
        if value:
            parts.append(f"{_safe(key).translate(_ESCAPE_TAG)}={_safe(value).translate(_ESCAPE_TAG)}")
    return ",".join(parts).encode()


def _safe(text: str) -> str:
    if any(c in text for c in "\n\r\0") or text.endswith("\\"):
        raise ValueError(f"{text!r} cannot stand in line protocol: it has a line break or NUL, or ends with a backslash")
    return text


def fields(values: Mapping[str, float | int | bool | str | None]) -> bytes:
    """The fields of a line: floats, integers, booleans and text; None is left out. Empty where all are."""
    return ",".join(f"{key}={_value(value)}" for key, value in values.items() if value is not None).encode()


def _value(value: float | int | bool | str) -> str:
    if isinstance(value, str):
        return '"' + value.translate(_ESCAPE_TEXT) + '"'
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
    """An InfluxDB bucket over its HTTP API.

    Plain HTTP: influxdb-client takes 1.6 s to import and compresses at level 9, which costs more than all the rest of a write.
    """

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
        connections: int = 4,
    ) -> None:
        """Opens nothing yet.

        :arg retain_days: of the bucket, should it have to be made.
        :arg ca_file: the authorities to trust (PEM), by default those of the system.
        :arg connections: that stay open for requests at the same time.
        """
        self._url, self._org, self._bucket = url.rstrip("/"), org, bucket
        self._retain_days = retain_days
        self._token, self._timeout_ms, self._ca_file = token, int(timeout_seconds * 1000), str(ca_file) if ca_file else None
        self._http = urllib3.PoolManager(
            maxsize=connections,
            headers={"Authorization": f"Token {token}"},
            timeout=timeout_seconds,
            retries=False,
            ca_certs=self._ca_file,
        )
        self._write_url = f"{self._url}/api/v2/write?{urlencode({'org': org, 'bucket': bucket, 'precision': 'us'})}"

    def retention_seconds(self) -> int | None:
        """Makes the bucket if it is missing; how long it keeps points, None for ever.

        :raises PermanentError: the token or the organisation is wrong.
        :raises TransientError: InfluxDB does not answer.
        """
        wanted = int(self._retain_days * 86_400)
        org = self._api("GET", "orgs", {"org": self._org})["orgs"][0]["id"]
        buckets = self._api("GET", "buckets", {"name": self._bucket, "orgID": org}, missing={"buckets": []})["buckets"]
        if not buckets:
            rules = [{"type": "expire", "everySeconds": wanted}]
            self._api("POST", "buckets", body={"name": self._bucket, "orgID": org, "retentionRules": rules})
            log.info("made bucket %s with %g days of retention", self._bucket, self._retain_days)
            return wanted
        seconds = sum(rule["everySeconds"] for rule in buckets[0]["retentionRules"])
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
        # 0.18 us a bar; zlib takes 0.7 us at its level 1 for 8 % more bytes, and 2.3 us at level 6 for 8 % less.
        packed = igzip.compress(body, compresslevel=1)
        self._request("POST", self._write_url, packed, {"Content-Encoding": "gzip", "Content-Type": "text/plain; charset=utf-8"})

    def _api(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        missing: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The answer as JSON; `missing` in place of a 404."""
        url = f"{self._url}/api/v2/{path}" + (f"?{urlencode(query)}" if query else "")
        data = json.dumps(body).encode() if body is not None else None
        try:
            answer = self._request(method, url, data, {"Content-Type": "application/json"})
        except _NotFound:
            if missing is None:
                raise
            return missing
        try:
            parsed: dict[str, Any] = json.loads(answer)
        except ValueError:
            raise TransientError(f"InfluxDB at {self._url} gave no JSON for {path}: check influxdb.url") from None
        return parsed

    def query(self, flux: str) -> list[dict[str, Any]]:
        """The rows that a Flux query gives, all its tables together. Raises as `write` does."""
        # Here for those who ask, not for those who write: its import takes longer than a leg's start.
        from influxdb_client import InfluxDBClient
        from influxdb_client.rest import ApiException

        with InfluxDBClient(self._url, self._token, org=self._org, timeout=self._timeout_ms, ssl_ca_cert=self._ca_file) as client:
            try:
                return [record.values for table in client.query_api().query(flux) for record in table.records]
            except ApiException as error:
                self._check(error.status or 0, str(error.body or error.reason or "").encode(), {})
                raise
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise self._unreachable(error) from None

    def _request(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        try:
            answer = self._http.request(method, url, body=body, headers={**self._http.headers, **headers})
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from None
        self._check(answer.status, answer.data, answer.headers)
        return answer.data

    def _unreachable(self, error: Exception) -> ConnectorError:
        if isinstance(error, urllib3.exceptions.SSLError):
            return PermanentError(
                f"InfluxDB at {self._url} has no certificate that is trusted ({error}): set influxdb.ca_file to its authority"
            )
        return TransientError(f"InfluxDB at {self._url} does not answer ({type(error).__name__}): check influxdb.url")

    def _check(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Raises for the status of an answer."""
        if 200 <= status < 300:
            return
        message = _message(body)
        if status in (401, 403):
            raise PermanentError(f"InfluxDB at {self._url} refused the token ({message}): check EGX_INFLUXDB__TOKEN")
        if status == 404:
            raise _NotFound(f"InfluxDB at {self._url}: {message}: check influxdb.org and influxdb.bucket")
        if status in (400, 413, 422):
            raise LinesRefused(message)
        after = headers.get("Retry-After", "")
        raise TransientError(f"InfluxDB at {self._url} answered {status} ({message})", float(after) if after.isdigit() else None)

    def close(self) -> None:
        self._http.clear()


class _NotFound(PermanentError):
    """What was asked for is not there."""


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (TypeError, ValueError, KeyError):
        return body[:200].decode(errors="replace") or "no reason given"


class _Underway(NamedTuple):
    """Points that are being written: by series and time, how many were handed over, and the requests."""

    points: Mapping[tuple[bytes, int], Point]
    total: int
    requests: list[tuple[list[Point], Future[None]]]


_CALLS_AHEAD: Final = 2  # of 1 InfluxDB is idle between requests; of 3 no more is won


class _ServerPartition(StatefulSinkPartition[Sequence[Point], None]):
    def __init__(self, sink: InfluxDBSink) -> None:
        self._sink = sink
        self._server = sink.server()
        self._retry = Retry(sink.retry_seconds, sink.stop, on_retry=sink.on_retry, extra=sink.extra)
        self._retention = self._retry(self._server.retention_seconds)
        self._pool = ThreadPoolExecutor(sink.parallel, thread_name_prefix="influxdb")
        self._underway: deque[_Underway] = deque()
        """The calls whose points are not known to be durable yet, the oldest first."""

    @override
    def write_batch(self, values: list[Sequence[Point]]) -> None:
        # Of several points of one series and time, the last is the one that stays.
        points = {(point.series, point.time): point for batch in values for point in batch}
        while any(not points.keys().isdisjoint(begun.points) for begun in self._underway):
            self._finish()  # the later version must come after the earlier one
        kept = list(points.values())
        if self._retention is not None:
            oldest = int((self._sink.clock() - self._retention) * 1e6)
            kept = [point for point in kept if point.time > oldest]
            self._sink.on_expired(len(points) - len(kept))
        # While requests are under way the next are read and formatted; no two have a point of the same series and time.
        size = self._sink.batch_points
        begun = _Underway(points, sum(map(len, values)), [])
        for batch in (kept[first : first + size] for first in range(0, len(kept), size)):
            begun.requests.append((batch, self._pool.submit(self._send, lines(batch))))
        self._underway.append(begun)
        # Without a backlog nothing is won by leaving it for later.
        self._finish_but(_CALLS_AHEAD if len(kept) >= size else 0)

    @property
    def calls_underway(self) -> int:
        """How many of the last calls' points are not known to be durable."""
        return len(self._underway)

    def _finish_but(self, calls: int) -> None:
        """Waits until no more than the last `calls` are under way."""
        while len(self._underway) > calls:
            self._finish()

    def _finish(self) -> None:
        """Waits until the oldest call that is under way is durable."""
        done = self._underway.popleft()
        wait([request for _, request in done.requests])
        for batch, request in done.requests:
            try:
                request.result()
            except LinesRefused as error:
                self._isolate(batch, error)
        self._sink.on_written(done.total)

    def _send(self, body: bytes) -> None:
        self._retry(lambda: self._server.write(body))

    def _isolate(self, points: Sequence[Point], error: LinesRefused) -> None:
        """Halving finds the points that were refused; writing the others again changes nothing."""
        if len(points) == 1:
            self._sink.on_refused(Refused(points[0].origin, str(error)))
            return
        for half in (points[: len(points) // 2], points[len(points) // 2 :]):
            try:
                self._send(lines(half))
            except LinesRefused as refused:
                self._isolate(half, refused)

    @override
    def snapshot(self) -> None:
        self._finish_but(0)
        return

    @override
    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._server.close()


def lines(points: Sequence[Point]) -> bytes:
    """The points as line protocol."""
    return b"\n".join([b"%b %b %d" % (point.series, point.fields, point.time) for point in points])


class InfluxDBSink(FixedPartitionedSink[Sequence[Point], None]):
    """Writes points; items are (the number of a partition, points).

    Delivery: durable at the end of the epoch (`snapshot`); what makes no full request, as soon as `write_batch` returns (of a
    backlog, two calls' requests are under way while the next are read). At least once onto the point's key (series and time):
    the last one wins, a replay changes nothing. A point that InfluxDB refuses goes to `on_refused`, and its neighbours are
    written. Points older than the bucket's retention are not sent (InfluxDB would refuse them) but counted.
    """

    def __init__(
        self,
        server: Callable[[], Server],
        *,
        stop: threading.Event,
        partitions: int = 1,
        batch_points: int = 5000,
        parallel: int = 3,
        retry_seconds: float = 300,
        on_written: Callable[[int], None] = lambda points: None,
        on_expired: Callable[[int], None] = lambda points: None,
        on_retry: Callable[[], None] = lambda: None,
        extra: Mapping[str, object] | None = None,
        on_refused: Callable[[Refused], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        :arg server: opens the server; called when the flow starts.
        :arg batch_points: points a request.
        :arg parallel: requests at the same time.
        :arg retry_seconds: how long a request is tried again before the flow fails.
        :arg on_written: called with the number of points handed over, those included that were refused or expired.
        :arg on_retry: called before each further attempt at a request.
        :arg extra: see `Retry`.
        :arg on_refused: must have dealt with the point when it returns.
        :arg clock: seconds since 1970.
        """
        self.server, self.stop, self.partitions = server, stop, partitions
        self.batch_points, self.parallel = batch_points, parallel
        self.retry_seconds, self.on_written, self.on_expired = retry_seconds, on_written, on_expired
        self.on_retry, self.on_refused, self.clock, self.extra = on_retry, on_refused, clock, extra

    @override
    def list_parts(self) -> list[str]:
        return [str(partition) for partition in range(self.partitions)]

    @override
    def part_fn(self, item_key: str) -> int:
        return int(item_key)

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _ServerPartition:
        return _ServerPartition(self)

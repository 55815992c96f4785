from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_protocol_parser import parse_line

from connectors.errors import PermanentError, Stopped, TransientError
from connectors.influxdb import InfluxDBSink, LinesRefused, Point, Refused, Server, fields, series
from tests.connectors.loopback import Answer, Loopback, Request, answering

# Line protocol, parsed back by a parser that is not ours

# What may stand in a name; NUL, line breaks, and a backslash at the end may not, and other backslashes are kept as they are.
LETTERS = st.text(st.sampled_from("aZ09 ,=\"'\\_.-/é股#"), min_size=1, max_size=10).filter(lambda text: not text.endswith("\\"))
# The parser takes a backslash before a special character for an escape even where it was escaped itself, as InfluxDB does.
NAMES = LETTERS.filter(lambda text: not any(f"\\{special}" in text for special in ' ,="\\') and not text.startswith("#"))
# The parser takes no subnormal numbers.
VALUES = (
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False) | st.integers(-(2**63), 2**63 - 1) | st.booleans()
)


@given(
    NAMES,
    st.dictionaries(NAMES, NAMES | st.just(""), max_size=4),
    st.dictionaries(st.sampled_from(["open", "high", "volume", "is_final"]), VALUES | st.none(), min_size=1),
    st.integers(0, 2**62),
)
def test_a_line_is_read_back_as_it_was_meant(
    measurement: str, tags: dict[str, str], values: dict[str, float | int | bool | None], time: int
) -> None:
    written = fields(values)
    kept = {name: value for name, value in values.items() if value is not None}
    assert bool(written) == bool(kept)
    if not kept:
        return
    line = b"%b %b %d" % (series(measurement, tags), written, time)
    assert b"\n" not in line
    read = parse_line(line.decode())
    assert read["measurement"] == measurement
    assert read["tags"] == {name: value for name, value in tags.items() if value}
    assert read["fields"] == kept
    assert {name: type(value) for name, value in read["fields"].items()} == {name: type(value) for name, value in kept.items()}
    assert read["time"] == time


@given(st.text(st.sampled_from("a\\,= \n\r\0"), min_size=1, max_size=5))
def test_what_line_protocol_cannot_hold_is_refused_and_never_a_second_line(text: str) -> None:
    impossible = any(c in text for c in "\n\r\0") or text.endswith("\\")
    for build in (lambda: series(text, {}), lambda: series("m", {text: "x"}), lambda: series("m", {"t": text})):
        if impossible:
            with pytest.raises(ValueError, match="cannot stand in line protocol"):
                build()
        else:
            assert not set(b"\n\r\0") & set(build())


def test_numbers_keep_their_last_digit_and_their_kind() -> None:
    written = fields({"a": 0.1 + 0.2, "b": 1e300, "c": 5e-324, "d": 3.0, "e": 3, "f": True, "g": None, "h": False})
    assert written == b"a=0.30000000000000004,b=1e+300,c=5e-324,d=3.0,e=3i,f=true,h=false"


# A server of a test's own, and the real client


class FakeInfluxDB:
    """Keeps what is written, and answers writes as told; by default it takes all."""

    def __init__(self) -> None:
        self.buckets: dict[str, int] = {}
        self.points: dict[tuple[str, int], dict[str, Any]] = {}
        self.answers: Iterator[Answer] = iter(())
        self.refused: Callable[[dict[str, Any]], bool] = lambda line: False
        self.token = "right"

    def answer(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Token {self.token}":
            return told(401, "unauthorized access")
        if request.path == "/api/v2/write":
            return self.write(request)
        if request.path == "/api/v2/orgs":
            return (
                found({"orgs": [{"id": "0f", "name": "egx"}]})
                if request.query["org"] == ["egx"]
                else told(404, "organization not found")
            )
        if request.path == "/api/v2/buckets" and request.method == "GET":
            named = [bucket(name, seconds) for name, seconds in self.buckets.items() if request.query["name"] == [name]]
            return found({"buckets": named})
        assert request.path == "/api/v2/buckets", request.path
        wanted = json.loads(request.body)
        self.buckets[wanted["name"]] = wanted["retentionRules"][0]["everySeconds"]
        return Answer(201, json.dumps(bucket(wanted["name"], 0)).encode(), JSON)

    def write(self, request: Request) -> Answer:
        for answer in self.answers:
            return answer
        assert (request.query["org"], request.query["bucket"], request.query["precision"]) == (["egx"], ["market_data"], ["us"])
        assert request.headers["content-encoding"] == "gzip"
        lines = [parse_line(line) for line in request.body.decode().split("\n")]
        if any(map(self.refused, lines)):
            return told(422, "field type conflict")
        for line in lines:
            self.points.setdefault((line["tags"]["symbol"], line["time"]), {}).update(line["fields"])
        return Answer(204)


JSON = {"Content-Type": "application/json"}


def bucket(name: str, seconds: int) -> dict[str, Any]:
    rules = [{"type": "expire", "everySeconds": seconds}] if seconds else []
    return {"id": "0b", "orgID": "0f", "name": name, "retentionRules": rules}


def found(value: object) -> Answer:
    return Answer(200, json.dumps(value).encode(), JSON)


def told(status: int, message: str, **headers: str) -> Answer:
    return Answer(status, json.dumps({"code": "x", "message": message}).encode(), {**JSON, **headers})


@pytest.fixture
def fake() -> FakeInfluxDB:
    return FakeInfluxDB()


@pytest.fixture
def server(fake: FakeInfluxDB) -> Iterator[Loopback]:
    with answering(fake.answer) as loopback:
        yield loopback


NOW = 1_765_000_000
DAY = 86_400


def partition(url: str, **options: Any) -> Any:
    chosen = {
        "stop": threading.Event(),
        "on_refused": lambda refused: pytest.fail(f"{refused}"),
        "clock": lambda: float(NOW),
        "retry_seconds": 20,
        **options,
    }
    client = {
        "org": chosen.pop("org", "egx"),
        "token": chosen.pop("token", "right"),
        "timeout_seconds": chosen.pop("timeout", 10),
    }
    return InfluxDBSink(lambda: Server(url, bucket="market_data", **client), **chosen).build_part("", "0", None)


def point(number: int, symbol: str = "COMI", seconds: int = NOW - DAY, **values: Any) -> Point:
    return Point(
        series("stock_price", {"symbol": symbol}),
        fields(values or {"close": float(number)}),
        seconds * 1_000_000 + number,
        number,
    )


def writes(server: Loopback) -> list[list[str]]:
    """The lines of each write."""
    return [request.body.decode().split("\n") for request in server.requests if request.path == "/api/v2/write"]


def test_a_missing_bucket_is_made_with_the_retention(fake: FakeInfluxDB, server: Loopback) -> None:
    partition(server.url)
    assert fake.buckets == {"market_data": 30 * DAY}


def test_a_bucket_that_is_there_is_left_as_it_is_with_a_warning(
    fake: FakeInfluxDB, server: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    for seconds, says in ((7 * DAY, "keeps points for 7 days"), (0, "keeps points for ever")):
        fake.buckets = {"market_data": seconds}
        partition(server.url)
        assert fake.buckets == {"market_data": seconds}
        assert says in caplog.text
    caplog.clear()
    fake.buckets = {"market_data": 30 * DAY}
    partition(server.url)
    assert caplog.text == ""


def test_points_are_written_in_batches_and_counted(fake: FakeInfluxDB, server: Loopback) -> None:
    counted: list[int] = []
    part = partition(server.url, batch_points=4, on_written=counted.append)
    part.write_batch([[point(number) for number in range(7)], [], [point(number) for number in range(7, 10)]])
    part.snapshot()
    assert sorted(len(lines) for lines in writes(server)) == [2, 4, 4]
    assert len(fake.points) == 10
    assert counted == [10]


def test_what_makes_no_full_request_is_durable_at_once(fake: FakeInfluxDB, server: Loopback) -> None:
    counted: list[int] = []
    part = partition(server.url, batch_points=4, on_written=counted.append)
    part.write_batch([[point(number) for number in range(4)]])
    part.write_batch([[point(number) for number in range(4, 7)]])
    assert len(fake.points) == 7
    assert counted == [4, 3]


def test_a_later_version_waits_for_the_earlier_one_that_is_under_way(fake: FakeInfluxDB, server: Loopback) -> None:
    fake.answers = iter([told(503, "busy")])  # the earlier one is tried again after a while
    part = partition(server.url, batch_points=1)
    part.write_batch([[point(1, close=1.0)]])
    part.write_batch([[point(3, close=2.0)]])
    part.write_batch([[point(1, close=2.0), point(2)]])
    part.snapshot()
    assert [values["close"] for _, values in sorted(fake.points.items())] == [2.0, 2.0, 2.0]


def test_two_calls_are_under_way_while_the_next_is_read(fake: FakeInfluxDB, server: Loopback) -> None:
    counted: list[int] = []
    part = partition(server.url, batch_points=1, on_written=counted.append)
    for number in range(4):
        part.write_batch([[point(number)]])
    assert counted == [1, 1]
    part.snapshot()
    assert counted == [1, 1, 1, 1]
    assert len(fake.points) == 4


def test_an_epoch_does_not_end_before_its_points_are_written(fake: FakeInfluxDB, server: Loopback) -> None:
    fake.answers = iter([told(401, "no longer")])
    part = partition(server.url, batch_points=1)
    part.write_batch([[point(1)]])
    with pytest.raises(PermanentError, match="refused the token"):
        part.snapshot()


def test_nothing_to_write_is_not_sent(server: Loopback) -> None:
    counted: list[int] = []
    partition(server.url, on_written=counted.append).write_batch([[]])
    assert writes(server) == []
    assert counted == [0]


def test_the_last_of_a_batch_stays_and_a_replay_changes_nothing(fake: FakeInfluxDB, server: Loopback) -> None:
    part = partition(server.url)
    batch = [[point(1, close=1.0), point(1, "ETEL", close=5.0)], [point(1, close=2.0)]]
    part.write_batch(batch)
    assert sum(map(len, writes(server))) == 2  # requests at the same time could put an older one last
    after = dict(fake.points)
    assert [values["close"] for values in after.values()] == [2.0, 5.0]
    part.write_batch(batch)
    assert fake.points == after


def test_points_older_than_the_retention_are_counted_and_not_sent(fake: FakeInfluxDB, server: Loopback) -> None:
    expired, written = [], []
    part = partition(server.url, on_expired=expired.append, on_written=written.append)
    part.write_batch([[point(1, seconds=NOW - 31 * DAY), point(2, seconds=NOW - 29 * DAY), point(3, seconds=NOW + DAY)]])
    assert len(fake.points) == 2
    assert (expired, written) == ([1], [3])
    fake.buckets = {"market_data": 0}  # keeps for ever
    partition(server.url, on_expired=expired.append).write_batch([[point(1, seconds=1)]])
    assert len(fake.points) == 3
    assert expired == [1]


@given(st.integers(1, 30), st.sets(st.integers(0, 29), max_size=5), st.integers(1, 12))
def test_refused_points_are_found_and_their_neighbours_written(count: int, bad: set[int], batch: int) -> None:
    fake, refused, written = FakeInfluxDB(), [], []
    fake.refused = lambda line: int(line["fields"]["close"]) in bad
    with answering(fake.answer) as server:
        part = partition(server.url, batch_points=batch, on_refused=refused.append, on_written=written.append)
        part.write_batch([[point(number) for number in range(count)]])
        part.snapshot()
    assert refused == [Refused(number, "field type conflict") for number in sorted(bad) if number < count]
    assert sorted(values["close"] for values in fake.points.values()) == [n for n in range(count) if n not in bad]
    assert written == [count]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_in_the_lines_is_a_refusal(fake: FakeInfluxDB, server: Loopback, status: int) -> None:
    refused: list[Refused] = []
    fake.answers = iter([told(status, "unable to parse"), told(status, "unable to parse"), Answer(204)])
    partition(server.url, on_refused=refused.append).write_batch([[point(1), point(2)]])
    assert refused == [Refused(1, "unable to parse")]


@pytest.mark.parametrize(
    "answer",
    [told(429, "limit", **{"Retry-After": "0"}), told(500, "internal"), told(503, "unavailable"), Answer(502, b"<html>")],
)
def test_a_server_in_trouble_is_tried_again(fake: FakeInfluxDB, server: Loopback, answer: Answer) -> None:
    fake.answers = iter([answer] * 2)
    partition(server.url).write_batch([[point(1)]])
    assert len(writes(server)) == 3
    assert len(fake.points) == 1


def test_the_wait_that_it_asks_for_is_kept(fake: FakeInfluxDB, server: Loopback) -> None:
    waited: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0)
            return False

    fake.answers = iter([told(429, "limit", **{"Retry-After": "17"})])
    partition(server.url, stop=Stop()).write_batch([[point(1)]])
    assert waited == [17]
    assert len(fake.points) == 1


def test_when_time_is_up_or_asked_to_end_the_batch_fails(fake: FakeInfluxDB, server: Loopback) -> None:
    part = partition(server.url, retry_seconds=0.05)
    fake.answers = iter([told(503, "unavailable")] * 1_000)
    with pytest.raises(TransientError, match=r"answered 503 \(unavailable\)"):
        part.write_batch([[point(1)]])
    stop = threading.Event()
    part = partition(server.url, stop=stop)
    stop.set()
    with pytest.raises(Stopped):
        part.write_batch([[point(1)]])
    assert fake.points == {}


@pytest.mark.parametrize(
    ("options", "says"),
    [({"token": "wrong"}, "EGX_INFLUXDB__TOKEN"), ({"org": "none"}, r"organization not found: check influxdb\.org")],
)
def test_a_wrong_token_or_organisation_stops_at_once_and_names_the_setting(
    server: Loopback, options: dict[str, str], says: str
) -> None:
    with pytest.raises(PermanentError, match=says) as caught:
        partition(server.url, **options)
    assert "wrong" not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "says"), [(401, "EGX_INFLUXDB__TOKEN"), (403, "EGX_INFLUXDB__TOKEN"), (404, "influxdb.bucket")]
)
def test_rights_lost_while_running_stop_at_once(fake: FakeInfluxDB, server: Loopback, status: int, says: str) -> None:
    part = partition(server.url)
    fake.answers = iter([told(status, "no more")])
    with pytest.raises(PermanentError, match=says) as caught:
        part.write_batch([[point(1)]])
    assert not isinstance(caught.value, LinesRefused)
    assert len(writes(server)) == 1


def test_no_server_at_the_address_is_transient_and_names_the_setting() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(TransientError, match=r"does not answer .*check influxdb\.url"):
            partition(f"http://127.0.0.1:{closed.getsockname()[1]}", retry_seconds=0.01)


def test_a_silent_server_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(TransientError, match="does not answer"):
            partition(f"http://127.0.0.1:{silent.getsockname()[1]}", retry_seconds=0.01, timeout=0.1)

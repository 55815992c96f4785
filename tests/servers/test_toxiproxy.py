"""Each fault is what its name says, and healing ends it; what is fetched is InfluxDB's page of metrics."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, NewConnectionError, ProtocolError, ReadTimeoutError

from tests.servers.fixtures import InfluxdbServer
from tests.servers.toxiproxy import Proxy


@pytest.fixture
def proxy(influxdb: InfluxdbServer, faulty: Callable[[str], Proxy]) -> Proxy:
    return faulty(influxdb.url.removeprefix("http://"))


def _fetch(proxy: Proxy, timeout_seconds: float = 20) -> bytes:
    with urllib3.HTTPConnectionPool(proxy.address, retries=False, timeout=timeout_seconds) as pool:
        answer = pool.request("GET", "/metrics")
        assert answer.status == 200
        return answer.data


def _seconds(proxy: Proxy) -> float:
    begun = time.monotonic()
    _fetch(proxy)
    return time.monotonic() - begun


def test_a_proxy_without_faults_changes_nothing(proxy: Proxy) -> None:
    assert b"go_info" in _fetch(proxy)


def test_latency_delays_the_answer(proxy: Proxy) -> None:
    proxy.latency(500)
    assert _seconds(proxy) >= 0.5


def test_bandwidth_makes_the_answer_slow(proxy: Proxy) -> None:
    kilobytes = len(_fetch(proxy)) // 1000
    proxy.bandwidth(kilobytes)
    assert _seconds(proxy) >= 0.5


def test_limit_data_cuts_the_answer_in_the_middle(proxy: Proxy) -> None:
    proxy.limit_data(1000)
    with pytest.raises((IncompleteRead, ProtocolError)):
        _fetch(proxy)


def test_reset_peer_resets_the_connection(proxy: Proxy) -> None:
    proxy.reset_peer()
    with pytest.raises(ProtocolError, match="Connection reset by peer"):
        _fetch(proxy)


def test_timeout_leaves_the_client_without_an_answer(proxy: Proxy) -> None:
    proxy.timeout()
    with pytest.raises(ReadTimeoutError):
        _fetch(proxy, timeout_seconds=0.5)


def test_a_disabled_proxy_refuses_and_an_enabled_one_listens_on_the_same_port(proxy: Proxy) -> None:
    proxy.disable()
    with pytest.raises(NewConnectionError, match="refused"):
        _fetch(proxy)
    proxy.enable()
    assert b"go_info" in _fetch(proxy)


def test_healing_ends_all_faults(proxy: Proxy) -> None:
    proxy.reset_peer()
    proxy.limit_data(10, "upstream")
    proxy.disable()
    with pytest.raises(HTTPError):
        _fetch(proxy)
    proxy.heal()
    assert b"go_info" in _fetch(proxy)

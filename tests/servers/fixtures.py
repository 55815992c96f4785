"""A pytest plugin: the servers as fixtures, and what happens to tests that need a server that is not there.

The fixtures `kafka`, `influxdb`, `s3` and `toxiproxy` give the server that the environment names (EGX_TEST_*,
as `python -m tests.servers env` prints them; so compose's services are tested), else the one that
`python -m tests.servers start` runs. A test that uses one gets the marker `servers` by itself; a test that
starts a server of its own says so by the marker: `@pytest.mark.servers("kafka")`.

Where a server is missing, the tests that need it are left out and the summary says so in one line. With CI
set, or EGX_TEST_SERVERS=require, they are errors instead.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from tests.ci import in_ci
from tests.servers.build import ARTEFACTS
from tests.servers.process import ServerError
from tests.servers.running import SERVERS, running
from tests.servers.toxiproxy import Proxy, ToxiproxyClient

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_VARIABLES = {
    "kafka": ("EGX_TEST_KAFKA",),
    "influxdb": ("EGX_TEST_INFLUXDB_URL", "EGX_TEST_INFLUXDB_TOKEN", "EGX_TEST_INFLUXDB_ORG"),
    "s3": ("EGX_TEST_S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "toxiproxy": ("EGX_TEST_TOXIPROXY",),
}
_INCLUDE = "`just servers` (python -m tests.servers start) starts them."


@dataclass(frozen=True)
class KafkaServer:
    """A running Kafka without authentication."""

    bootstrap: str


@dataclass(frozen=True)
class InfluxdbServer:
    """A running InfluxDB and a token that may make buckets in `org`."""

    url: str
    token: str
    org: str


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and an account that may make buckets."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str

    def client(self) -> S3Client:
        """A boto3 client logged in to it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
        )


class _Found:
    """Which servers this test run can use; looked up once."""

    def __init__(self) -> None:
        try:
            self.variables = {name: server.environment for name, server in running().items()}
        except ServerError as error:
            raise pytest.UsageError(str(error)) from None
        for name, wanted in _VARIABLES.items():
            if os.environ.get(wanted[0]):
                if unset := [variable for variable in wanted if not os.environ.get(variable)]:
                    raise pytest.UsageError(f"{wanted[0]} is set, so {', '.join(unset)} must be set too")
                self.variables[name] = dict(os.environ)
        self.required = in_ci() or os.environ.get("EGX_TEST_SERVERS") == "require"
        self.left_out = 0

    def of(self, name: str) -> dict[str, str]:
        """The variables that name the server; a test that asks for one that is not there fails."""
        if name not in self.variables:
            pytest.fail(f"needs {name}, not there: {_INCLUDE}", pytrace=False)
        return self.variables[name]

    def missing_for(self, item: pytest.Item) -> set[str]:
        """The servers that the test needs and that are not there: not running, or, for its own, not built."""
        used = set(getattr(item, "fixturenames", ())) & set(SERVERS)
        own = {name for marker in item.iter_markers("servers") for name in marker.args}
        return (used - set(self.variables)) | {name for name in own if not ARTEFACTS[name].built}


_found = pytest.StashKey[_Found]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "servers(*names): needs real servers; names are those that the test starts itself")
    config.stash[_found] = _Found()


def pytest_itemcollected(item: pytest.Item) -> None:
    if set(getattr(item, "fixturenames", ())) & set(SERVERS):
        item.add_marker(pytest.mark.servers)


@pytest.hookimpl(trylast=True)  # after -k and -m, so that only what would have run is counted as left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    found = config.stash[_found]
    if found.required:
        return
    left_out = {item for item in items if found.missing_for(item)}
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]
    found.left_out = len(left_out)
    if hasattr(config, "workeroutput"):  # a worker of pytest-xdist: its controller prints the summary
        config.workeroutput["servers_left_out"] = len(left_out)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if missing := item.config.stash[_found].missing_for(item):
        pytest.fail(f"needs {', '.join(sorted(missing))}, not there: {_INCLUDE}", pytrace=False)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    found: _Found = node.config.stash[_found]
    found.left_out = max(found.left_out, getattr(node, "workeroutput", {}).get("servers_left_out", 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := config.stash[_found].left_out:
        what = f"{count} tests that need" if count > 1 else "1 test that needs"
        terminalreporter.write_line(f"Left out {what} real servers: {_INCLUDE}", yellow=True)


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> KafkaServer:
    """A running Kafka, shared by all tests: use `unique_name` for topics and groups."""
    return KafkaServer(pytestconfig.stash[_found].of("kafka")["EGX_TEST_KAFKA"])


@pytest.fixture(scope="session")
def influxdb(pytestconfig: pytest.Config) -> InfluxdbServer:
    """A running InfluxDB, shared by all tests: use `unique_name` for buckets."""
    variables = pytestconfig.stash[_found].of("influxdb")
    url, token, org = (variables[name] for name in _VARIABLES["influxdb"])
    return InfluxdbServer(url, token, org)


@pytest.fixture(scope="session")
def s3(pytestconfig: pytest.Config) -> S3Server:
    """A running S3 server, shared by all tests: use `unique_name` for buckets and prefixes."""
    variables = pytestconfig.stash[_found].of("s3")
    endpoint, access_key, secret_key = (variables[name] for name in _VARIABLES["s3"])
    return S3Server(endpoint, access_key, secret_key, variables.get("AWS_DEFAULT_REGION", "us-east-1"))


@pytest.fixture(scope="session")
def toxiproxy(pytestconfig: pytest.Config) -> ToxiproxyClient:
    """A running Toxiproxy, shared by all tests; `faulty` makes proxies and removes them after the test."""
    return ToxiproxyClient(pytestconfig.stash[_found].of("toxiproxy")["EGX_TEST_TOXIPROXY"])


@pytest.fixture
def faulty(toxiproxy: ToxiproxyClient) -> Iterator[Callable[[str], Proxy]]:
    """Makes a proxy to `host:port` through which faults can be injected; it is removed after the test."""
    with ExitStack() as proxies:
        yield lambda upstream: proxies.enter_context(toxiproxy.create(f"test-{uuid.uuid4().hex[:12]}", upstream))


@pytest.fixture
def unique_name() -> str:
    """A name that no other test uses, valid as a topic, a group, a bucket (InfluxDB, S3) and a prefix."""
    return f"test-{uuid.uuid4().hex[:12]}"

"""InfluxDB 2: one influxd, set up with one organisation and one token that may do everything."""

from __future__ import annotations

from collections.abc import Mapping

import urllib3

from tests.servers.build import ARTEFACTS
from tests.servers.process import Server, ServerError

_http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=10))


class Influxdb(Server):
    """An InfluxDB whose acknowledged writes are on disk: it syncs its log before each answer."""

    name = "influxdb"
    secret_names = ("password", "token")
    org = "egx"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def environment(self) -> dict[str, str]:
        return {
            "EGX_TEST_INFLUXDB_URL": self.url,
            "EGX_TEST_INFLUXDB_TOKEN": self.secrets["token"],
            "EGX_TEST_INFLUXDB_ORG": self.org,
        }

    def _prepare(self) -> None:
        (self.folder / "data").mkdir()

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        data = self.folder / "data"
        return [str(ARTEFACTS[self.name].get()), "run"], {
            "INFLUXD_HTTP_BIND_ADDRESS": self.address,
            "INFLUXD_REPORTING_DISABLED": "true",
            "INFLUXD_LOG_LEVEL": "warn",
            "INFLUXD_BOLT_PATH": str(data / "influxd.bolt"),
            "INFLUXD_SQLITE_PATH": str(data / "influxd.sqlite"),
            "INFLUXD_ENGINE_PATH": str(data / "engine"),
        }

    def _healthy(self) -> bool:
        try:
            return _http.request("GET", f"{self.url}/health", timeout=1.0).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _setup(self) -> dict[str, str | int]:
        """The body of the request that sets up a new server."""
        return {
            "username": "egx",
            "password": self.secrets["password"],
            "token": self.secrets["token"],
            "org": self.org,
            # The setup insists on a bucket; nothing uses this one.
            "bucket": "setup",
        }

    def _after_first_start(self) -> None:
        answer = _http.request("POST", f"{self.url}/api/v2/setup", json=self._setup())
        if answer.status != 201:
            raise ServerError(f"influxdb refused its setup: {answer.status} {answer.data.decode()}")

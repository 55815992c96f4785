"""Toxiproxy: a TCP proxy between a client and a server, and the faults that it can make on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import urllib3

from tests.servers.build import ARTEFACTS
from tests.servers.process import HOST, Server, ServerError, free_port

_http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=10))

Direction = Literal["upstream", "downstream"]
"""`upstream`: from the client to the server. `downstream`: the answers."""


class Toxiproxy(Server):
    """A Toxiproxy without proxies; `client` makes them."""

    name = "toxiproxy"

    @property
    def client(self) -> ToxiproxyClient:
        return ToxiproxyClient(f"http://{self.address}")

    def environment(self) -> dict[str, str]:
        return {"EGX_TEST_TOXIPROXY": self.client.url}

    def _prepare(self) -> None:
        pass

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        return [str(ARTEFACTS[self.name].get()), f"-host={HOST}", f"-port={self.ports['main']}"], {"LOG_LEVEL": "warn"}

    def _healthy(self) -> bool:
        try:
            return _http.request("GET", f"{self.client.url}/version", timeout=1.0).status == 200
        except urllib3.exceptions.HTTPError:
            return False


@dataclass(frozen=True)
class ToxiproxyClient:
    """Makes proxies through the HTTP API of the Toxiproxy at `url`."""

    url: str

    def create(self, name: str, upstream: str, listen: str | None = None) -> Proxy:
        """Makes a proxy to the address `upstream` (host:port), on a free port unless `listen` is given."""
        listen = listen or f"{HOST}:{free_port()}"
        self._call("POST", "/proxies", {"name": name, "listen": listen, "upstream": upstream, "enabled": True})
        return Proxy(self, name, listen)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = _http.request(method, f"{self.url}{path}", json=body)
        if answer.status >= 300:
            raise ServerError(f"toxiproxy: {method} {path} {body}: {answer.status} {answer.data.decode()}")
        return answer.json() if answer.data else None


@dataclass(frozen=True)
class Proxy:
    """One proxy; clients connect to `address`. As a context manager it is deleted at the end.

    A fault lasts until `heal()`. Each kind of fault is there at most once in each direction.
    """

    client: ToxiproxyClient
    name: str
    address: str

    def latency(self, milliseconds: int, jitter_milliseconds: int = 0, direction: Direction = "downstream") -> None:
        """Delays everything by `milliseconds`, give or take `jitter_milliseconds`."""
        self._add("latency", direction, latency=milliseconds, jitter=jitter_milliseconds)

    def bandwidth(self, kilobytes_per_second: int, direction: Direction = "downstream") -> None:
        """Lets at most `kilobytes_per_second` through on each connection; 0 lets nothing through."""
        self._add("bandwidth", direction, rate=kilobytes_per_second)

    def reset_peer(self, after_milliseconds: int = 0, direction: Direction = "downstream") -> None:
        """Ends each connection by a TCP reset after `after_milliseconds`."""
        self._add("reset_peer", direction, timeout=after_milliseconds)

    def limit_data(self, size_bytes: int, direction: Direction = "downstream") -> None:
        """Closes each connection when `size_bytes` have gone through: an answer cut in the middle."""
        self._add("limit_data", direction, bytes=size_bytes)

    def timeout(self, milliseconds: int = 0, direction: Direction = "downstream") -> None:
        """Drops everything and closes the connection after `milliseconds`; 0 leaves it open and silent."""
        self._add("timeout", direction, timeout=milliseconds)

    def disable(self) -> None:
        """Refuses connections and closes those that are open, as if the server were gone."""
        self._enabled(False)

    def enable(self) -> None:
        """Accepts connections again, on the same port."""
        self._enabled(True)

    def heal(self) -> None:
        """Ends all faults: removes every toxic and accepts connections."""
        for toxic in self.client._call("GET", f"/proxies/{self.name}/toxics"):
            self.client._call("DELETE", f"/proxies/{self.name}/toxics/{toxic['name']}")
        self.enable()

    def delete(self) -> None:
        """Removes the proxy."""
        self.client._call("DELETE", f"/proxies/{self.name}")

    def _add(self, kind: str, direction: Direction, **attributes: int) -> None:
        toxic = {"name": f"{kind}_{direction}", "type": kind, "stream": direction, "attributes": attributes}
        self.client._call("POST", f"/proxies/{self.name}/toxics", toxic)

    def _enabled(self, enabled: bool) -> None:
        self.client._call("POST", f"/proxies/{self.name}", {"enabled": enabled})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.delete()

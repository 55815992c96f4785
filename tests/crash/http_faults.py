"""A TCP proxy in front of an HTTP server that can answer for it with an error."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress

from tests.servers.process import HOST


class HttpFaults:
    """Passes bytes through both ways; while `status` is set, it drops what is open and answers each request itself."""

    def __init__(self, upstream: str) -> None:
        """:arg upstream: host:port."""
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self.address = f"{HOST}:{self._listener.getsockname()[1]}"
        self._status: int | None = None
        self._retry_after: int | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.answered = 0
        threading.Thread(target=self._accept, name="http-faults", daemon=True).start()

    def fail(self, status: int, retry_after: int | None = None) -> None:
        """Answers with this status from now on."""
        self._status, self._retry_after = status, retry_after
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        self._status = None

    def close(self) -> None:
        self._listener.close()
        self.fail(503)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            if self._status is not None:
                self._answer(client, self._status)
                return
            try:
                upstream = socket.create_connection(self._upstream, timeout=5)
            except OSError:
                return
            with upstream:
                with self._lock:
                    self._open |= {client, upstream}
                try:
                    self._pass_on(client, upstream)
                except OSError:
                    pass
                finally:
                    with self._lock:
                        self._open -= {client, upstream}

    def _pass_on(self, client: socket.socket, upstream: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, upstream)
            selector.register(upstream, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    source: socket.socket = key.fileobj  # type: ignore[assignment]  # registered above
                    received = source.recv(65_536)
                    if not received:
                        return
                    key.data.sendall(received)

    def _answer(self, client: socket.socket, status: int) -> None:
        """Reads a whole request and answers it, as a busy server or its load balancer does."""
        client.settimeout(5)
        with suppress(OSError, ValueError):
            request = b""
            while b"\r\n\r\n" not in request:
                received = client.recv(65_536)
                if not received:
                    return
                request += received
            head, _, body = request.partition(b"\r\n\r\n")
            if b"100-continue" in head.lower():
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = next(
                (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0
            )
            remaining = length - len(body)
            while remaining > 0:
                remaining -= len(client.recv(65_536)) or remaining
            after = f"Retry-After: {self._retry_after}\r\n" if self._retry_after is not None else ""
            answer = f"HTTP/1.1 {status} Fault\r\n{after}Content-Length: 0\r\nConnection: close\r\n\r\n"
            client.sendall(answer.encode())
            self.answered += 1

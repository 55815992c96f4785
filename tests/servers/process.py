"""A server process on loopback: ports, credentials, folder, health, and an end by process id."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import msgspec
import psutil

HOST = "127.0.0.1"
START_SECONDS = 90.0
"""How long a server may take to become healthy; generous, for a machine that is building at the same time."""
STOP_SECONDS = 15.0
"""How long a server may take to end by SIGTERM before it gets SIGKILL."""


class ServerError(RuntimeError):
    """A server did not start or did not answer; the message ends with the last lines of its log."""


class Running(msgspec.Struct, frozen=True):
    """What another process must know to use a server, to tell whether it still runs, and to end it."""

    name: str
    pid: int
    started: float
    """When the process `pid` began, in seconds since 1970: tells it from a later process with the same id."""
    folder: str
    ports: dict[str, int]
    secrets: dict[str, str]
    environment: dict[str, str]
    """The variables by which tests find the server and log in to it."""

    def process(self) -> psutil.Process | None:
        """The running process, or None if it has ended (also if its id now belongs to another process)."""
        try:
            process = psutil.Process(self.pid)
            # One second of tolerance: the kernel counts from boot, and the time of boot may be corrected.
            same = abs(process.create_time() - self.started) < 1
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def free_port() -> int:
    """Returns a TCP port of loopback that nothing uses, if possible none of those of outgoing connections.

    Such a port can be taken by any client while its server is down; a client that retries it can even connect
    to itself. The server could then not be started again on the same port.
    """
    try:
        lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        lowest_outgoing = 32768
    candidates = range(10_000, max(lowest_outgoing, 10_000))
    for port in random.SystemRandom().sample(candidates, k=min(200, len(candidates))):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float, failure: Callable[[], str]) -> None:
    """Calls `condition` until it is true; raises ServerError with `failure()` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(failure())
        time.sleep(0.05)


class Server(ABC):
    """One server with its data in `folder`.

    Ports and credentials are chosen when the object is made and kept for as long as it lives, so that after
    `kill()` the same server comes back with `start()`. As a context manager it starts and stops the server.
    """

    name: ClassVar[str]
    port_names: ClassVar[tuple[str, ...]] = ("main",)
    secret_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.ports = {name: free_port() for name in self.port_names}
        self.secrets = {name: secrets.token_urlsafe(24) for name in self.secret_names}
        self._process: psutil.Process | None = None
        self._prepared = False
        self._set_up = False

    @classmethod
    def attach(cls, running: Running) -> Self:
        """The server that another process started, as the state file has it."""
        server = cls(Path(running.folder))
        server.ports, server.secrets = dict(running.ports), dict(running.secrets)
        server._process = running.process()
        server._prepared = server._set_up = True
        return server

    @property
    def address(self) -> str:
        """Host and port of the main listener."""
        return f"{HOST}:{self.ports['main']}"

    @property
    def log(self) -> Path:
        """What the server printed, over all its starts."""
        return self.folder / "server.log"

    @property
    def process(self) -> psutil.Process | None:
        """The running process, or None when it has ended."""
        if self._process is None:
            return None
        if isinstance(self._process, psutil.Popen):
            self._process.poll()  # a child that has ended stays a zombie until its parent asks
        try:
            # psutil compares the start time too: a later process with the same id is not this one.
            ended = not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return None if ended else self._process

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The variables by which tests find this server and log in to it."""

    @abstractmethod
    def _prepare(self) -> None:
        """Writes what the server needs before its first start."""

    @abstractmethod
    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        """The command line and the environment variables that it needs on top of this process's."""

    @abstractmethod
    def _healthy(self) -> bool:
        """Whether the server serves requests now. Called again and again, so it must not block for long."""

    def _after_first_start(self) -> None:  # noqa: B027 (most servers need nothing)
        """What is done once, on the healthy server."""

    def launch(self) -> None:
        """Starts the process without waiting for it to be healthy."""
        if self.process is not None:
            raise ServerError(f"{self.name} runs already, as process {self.process.pid}")
        if not self._prepared:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._prepare()
            self._prepared = True
        command, variables = self._command()
        with open(self.log, "a", opener=private) as log:
            self._process = psutil.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )

    def wait_healthy(self, seconds: float = START_SECONDS) -> None:
        """Returns when the server serves requests; raises ServerError if it ends or takes over `seconds`."""

        def healthy() -> bool:
            if self.process is None:
                raise ServerError(f"{self.name} ended while it started.\n{self._log_end()}")
            return self._healthy()

        wait_until(healthy, seconds, lambda: f"{self.name} was not healthy after {seconds:g} s.\n{self._log_end()}")
        if not self._set_up:
            self._after_first_start()
            self._set_up = True

    def start(self) -> Self:
        """Starts the server and waits until it is healthy; one that does not become healthy is killed."""
        self.launch()
        try:
            self.wait_healthy()
        except BaseException:
            self.kill()
            raise
        return self

    def restart_on_same_port(self) -> Self:
        """Starts the server again after `kill()` or `stop()`, on the same ports and with the same data."""
        return self.start()

    def kill(self) -> None:
        """Ends the server by SIGKILL, as a crash would, and waits until it is gone. Data stays."""
        if (process := self.process) is not None:
            process.kill()
            self._wait_gone()

    def stop(self) -> None:
        """Ends the server by SIGTERM, by SIGKILL if that takes too long, and waits for it. Data stays."""
        if (process := self.process) is not None:
            process.terminate()
            try:
                self._wait_gone()
            except ServerError:
                self.kill()

    def remove(self) -> None:
        """Stops the server and removes its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def running(self) -> Running:
        """The entry of the state file."""
        if (process := self.process) is None:
            raise ServerError(f"{self.name} does not run")
        return Running(
            self.name,
            process.pid,
            process.create_time(),
            str(self.folder),
            self.ports,
            self.secrets,
            self.environment(),
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _wait_gone(self) -> None:
        wait_until(
            lambda: self.process is None,
            STOP_SECONDS,
            lambda: f"{self.name} still runs {STOP_SECONDS:g} s after a signal",
        )

    def _log_end(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-20:]
        return f"The last lines of {self.log}:\n" + "\n".join(lines)


def private(path: str, flags: int) -> int:
    """An opener for files that may hold secrets: made with mode 0600."""
    return os.open(path, flags, 0o600)


def write_private(path: Path, text: str) -> None:
    """Writes a file that holds secrets, mode 0600, by one rename, so that no reader sees half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with open(unfinished, "w", opener=private) as file:
        file.write(text)
    unfinished.rename(path)

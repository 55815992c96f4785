"""The servers that run in the background, and the state file by which other processes find them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tests.servers.build import ARTEFACTS, cache_folder, locked
from tests.servers.influxdb import Influxdb
from tests.servers.kafka import Kafka
from tests.servers.process import Running, Server, ServerError, write_private
from tests.servers.s3 import S3
from tests.servers.toxiproxy import Toxiproxy

SERVERS: dict[str, type[Server]] = {server.name: server for server in (Kafka, Influxdb, S3, Toxiproxy)}


def state_file() -> Path:
    """The state file: JSON, mode 0600, an entry a server."""
    return cache_folder() / "running.json"


def recorded() -> dict[str, Running]:
    """What the state file says, whether or not it is still true."""
    try:
        return msgspec.json.decode(state_file().read_bytes(), type=dict[str, Running])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as error:
        raise ServerError(f"{state_file()} cannot be read: {error}. Stop its servers by their ids and remove it.") from None


def running() -> dict[str, Running]:
    """The servers of the state file whose process still runs."""
    return {name: server for name, server in recorded().items() if server.process() is not None}


def start(names: Iterable[str]) -> dict[str, Running]:
    """Builds and starts those of the servers `names` that do not run yet; returns all that run then.

    Raises BuildError or ServerError; the servers of this call that had been started are stopped again then.
    """
    names = list(names)
    for name in names:
        ARTEFACTS[name].get()
    with locked(cache_folder() / "running.lock"), ExitStack() as undo:
        known = recorded()
        started: list[Server] = []
        for name in names:
            if name in known:
                if known[name].process() is not None:
                    continue
                _remove_data(known.pop(name))
            folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_runs_folder()))
            server = SERVERS[name](folder)
            undo.callback(server.remove)
            server.launch()
            started.append(server)
        for server in started:
            server.wait_healthy()
            known[server.name] = server.running()
        _record(known)
        undo.pop_all()
    return running()


def stop(names: Iterable[str], *, keep_data: bool = False) -> list[Running]:
    """Stops those of the servers `names` that the state file knows, and returns them.

    Each is ended by its process id, and only if that is still the process that was started; its folder is
    removed unless `keep_data`.
    """
    with locked(cache_folder() / "running.lock"):
        known = recorded()
        stopped = []
        for name in names:
            if name in known:
                SERVERS[name].attach(known[name]).stop()
                stopped.append(known.pop(name))
                _record(known)
                if not keep_data:
                    _remove_data(stopped[-1])
    return stopped


def _runs_folder() -> Path:
    folder = cache_folder() / "runs"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _record(servers: dict[str, Running]) -> None:
    if servers:
        write_private(state_file(), msgspec.json.format(msgspec.json.encode(servers)).decode())
    else:
        state_file().unlink(missing_ok=True)


def _remove_data(server: Running) -> None:
    folder = Path(server.folder)
    # A damaged state file must not make this remove anything else.
    if folder.parent == _runs_folder():
        shutil.rmtree(folder, ignore_errors=True)

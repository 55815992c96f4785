"""`python -m tests.servers`: what is started is found, told from strangers, and stopped without a trace."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.servers.build import ARTEFACTS
from tests.servers.process import Running, free_port, wait_until, write_private
from tests.servers.running import recorded, running, state_file, stop

pytestmark = pytest.mark.servers("s3", "toxiproxy")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with the built servers of the real one, so that the servers that run there are left alone."""
    built = {name: ARTEFACTS[name].folder for name in ("s3", "toxiproxy")}
    cache = tmp_path / "cache"
    cache.mkdir()
    for folder in built.values():
        (cache / folder.name).symlink_to(folder)
    monkeypatch.setenv("EGX_SERVERS_CACHE", str(cache))


def _command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.servers", *arguments],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(*arguments: str, expected: int = 0) -> str:
    command = _command(*arguments)
    output = command.communicate(timeout=120)[0]
    assert command.returncode == expected, output
    return output


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_start_status_env_and_stop_of_one_server() -> None:
    _run("start", "s3")
    try:
        server = running()["s3"]
        assert f"127.0.0.1:{server.ports['main']}" in _run("status")
        assert f"export AWS_SECRET_ACCESS_KEY={server.secrets['secret_key']}" in _run("env").splitlines()
        assert server.secrets["secret_key"] not in _run("status")
    finally:
        output = _run("stop")
    assert output.split() == ["s3", "stopped"]
    assert _gone(server.pid)
    assert not Path(server.folder).exists()
    assert not state_file().exists()
    assert "no server runs" in _run("status", expected=1)


def test_what_holds_secrets_is_for_the_owner_only() -> None:
    _run("start", "s3")
    try:
        folder = Path(running()["s3"].folder)
        assert stat.S_IMODE(state_file().stat().st_mode) == 0o600
        assert stat.S_IMODE((folder / "server.log").stat().st_mode) == 0o600
        assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.parents[:1])] == [0o700, 0o700]
    finally:
        _run("stop")


def test_credentials_are_made_up_anew_at_each_start() -> None:
    secrets = []
    for _ in range(2):
        _run("start", "s3")
        secrets.append(running()["s3"].secrets)
        _run("stop")
    assert set(secrets[0].values()).isdisjoint(secrets[1].values())


def test_starting_a_running_server_leaves_it_as_it_is() -> None:
    _run("start", "toxiproxy")
    try:
        before = recorded()
        _run("start", "toxiproxy")
        assert recorded() == before
    finally:
        _run("stop")


def test_two_starts_at_once_start_one_server() -> None:
    commands = [_command("start", "toxiproxy") for _ in range(2)]
    outputs = [command.communicate(timeout=120)[0] for command in commands]
    try:
        assert [command.returncode for command in commands] == [0, 0]
        assert outputs[0] == outputs[1]
        assert len(list(state_file().parent.glob("runs/*"))) == 1
    finally:
        _run("stop")


def test_a_server_that_died_is_said_to_have_ended_and_is_replaced_by_the_next_start() -> None:
    _run("start", "toxiproxy")
    try:
        dead = recorded()["toxiproxy"]
        os.kill(dead.pid, signal.SIGKILL)
        wait_until(lambda: _gone(dead.pid), 30, lambda: "SIGKILL did not end it")
        assert running() == {}
        assert "ended without being stopped" in _run("status", expected=1)
        assert _run("env") == ""
        _run("start", "toxiproxy")
        assert running()["toxiproxy"].pid != dead.pid
        assert not Path(dead.folder).exists()
    finally:
        _run("stop")


def test_stop_never_ends_a_later_process_that_has_the_same_id() -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            started = psutil.Process(stranger.pid).create_time()
            folder = state_file().parent / "runs" / "toxiproxy-old"
            folder.mkdir(parents=True)
            old = Running("toxiproxy", stranger.pid, started - 60, str(folder), {"main": free_port()}, {}, {})
            write_private(state_file(), json.dumps({"toxiproxy": _as_json(old)}))
            assert running() == {}
            assert [server.name for server in stop(["toxiproxy"])] == ["toxiproxy"]
            assert stranger.poll() is None
            assert not folder.exists()
        finally:
            stranger.kill()


def test_keep_leaves_the_data() -> None:
    _run("start", "s3")
    data = Path(running()["s3"].folder) / "data"
    (data / "bucket").mkdir()
    assert str(data.parent) in _run("stop", "--keep")
    assert (data / "bucket").is_dir()


def test_a_name_that_is_no_server_is_refused_with_those_that_are() -> None:
    assert "no server is called redis; there are kafka, influxdb, s3, toxiproxy" in _run("start", "redis", expected=2)


def _as_json(server: Running) -> dict[str, object]:
    return {field: getattr(server, field) for field in server.__struct_fields__}

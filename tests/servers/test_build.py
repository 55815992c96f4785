"""A server is built once, whole or not at all, and a failed build says why and what to do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.build import Artefact, BuildError, Step, cache_folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGX_SERVERS_CACHE", str(tmp_path / "cache"))


def _artefact(make: Callable[[Step, str], None], **needs: str) -> Artefact:
    return Artefact("sample", "1.0", "program", needs, 0.1, make)


def test_a_built_server_is_not_built_again() -> None:
    builds: list[str] = []

    def make(step: Step, version: str) -> None:
        builds.append(version)
        (step.folder / "program").write_text("x")

    artefact = _artefact(make)
    assert artefact.get().read_text() == "x"
    assert artefact.get() == cache_folder() / "sample-1.0" / "program"
    assert builds == ["1.0"]


def test_two_builders_at_once_build_once() -> None:
    builds: list[str] = []
    second_waits = threading.Event()

    def make(step: Step, version: str) -> None:
        assert second_waits.wait(30)
        builds.append(version)
        (step.folder / "program").write_text("x")

    artefact = _artefact(make)
    threads = [threading.Thread(target=artefact.get) for _ in range(2)]
    for thread in threads:
        thread.start()
    second_waits.set()
    for thread in threads:
        thread.join(30)
    assert builds == ["1.0"]
    assert artefact.built


def test_a_failed_build_says_its_last_lines_and_what_it_needs_and_leaves_nothing_built() -> None:
    def make(step: Step, _version: str) -> None:
        (step.folder / "half").write_text("x")
        step.run("sh", "-c", "seq 1 100; echo 'linker not found' >&2; exit 3")

    artefact = _artefact(make, sh="a shell (sh)")
    with pytest.raises(BuildError) as failed:
        artefact.get()
    message = str(failed.value)
    assert "sample 1.0 could not be built" in message
    assert "linker not found" in message
    assert "ended with 3" in message
    assert "It needs a shell (sh)" in message
    assert "\n1\n" not in message  # the last lines only
    assert not artefact.built
    assert "\n1\n" in (cache_folder() / "logs" / "sample-1.0.log").read_text()  # all of them are kept here


def test_a_build_that_was_interrupted_is_made_anew() -> None:
    def interrupted(step: Step, _version: str) -> None:
        (step.folder / "half").write_text("x")
        (step.folder / "half").chmod(0o400)
        step.folder.chmod(0o500)  # like a copy from Go's module cache
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _artefact(interrupted).get()
    artefact = _artefact(lambda step, _version: (step.folder / "program").touch())
    artefact.get()
    assert [path.name for path in artefact.folder.iterdir()] == ["program"]


def test_a_missing_tool_is_named_with_what_to_install() -> None:
    artefact = _artefact(lambda _step, _version: None, egx_no_such_compiler="a compiler (egx_no_such_compiler)")
    with pytest.raises(BuildError, match=r"install a compiler \(egx_no_such_compiler\)"):
        artefact.get()
    assert not artefact.built

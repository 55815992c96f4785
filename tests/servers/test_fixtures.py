"""A test whose server is not there is left out with one line, or is an error where servers are required."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str]]

_TESTS = """
import pytest

def test_plain(): pass
def test_uses_kafka(kafka): assert kafka.bootstrap == "127.0.0.1:9"
@pytest.mark.servers("s3")
def test_starts_its_own(): pass
"""


@pytest.fixture
def pytest_run(tmp_path: Path) -> Run:
    (tmp_path / "test_sample.py").write_text(_TESTS)

    def run(*arguments: str, **variables: str) -> tuple[int, str]:
        clean = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith(("EGX_", "PYTEST_"))}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-p", "tests.servers.fixtures", "-c", os.devnull),
                *("--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path), *arguments),
            ],
            cwd=tmp_path,
            env={
                **clean,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "EGX_SERVERS_CACHE": str(tmp_path / "cache"),
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_without_servers_the_rest_runs_and_one_line_says_what_was_left_out(pytest_run: Run, workers: tuple[str, ...]) -> None:
    code, output = pytest_run(*workers)
    assert code == 0
    assert re.search(r"^=+ 1 passed.* =+$", output, re.MULTILINE)
    said = [line for line in output.splitlines() if line.startswith("Left out")]
    assert said == ["Left out 2 tests that need real servers: `just servers` (python -m tests.servers start) starts them."]


def test_tests_that_were_not_asked_for_are_not_said_to_be_left_out(pytest_run: Run) -> None:
    code, output = pytest_run("-m", "not servers")
    assert code == 0
    assert "Left out" not in output


@pytest.mark.parametrize("variables", [{"CI": "true"}, {"EGX_TEST_SERVERS": "require"}], ids=str)
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_where_servers_are_required_a_missing_one_is_an_error(
    pytest_run: Run, variables: dict[str, str], workers: tuple[str, ...]
) -> None:
    code, output = pytest_run(*workers, **variables)
    assert code == 1
    assert re.search(r"^=+ 1 passed, 2 errors.* =+$", output, re.MULTILINE)
    assert "needs kafka, not there: `just servers`" in output
    assert "Left out" not in output


def test_a_server_that_the_environment_names_is_used(pytest_run: Run) -> None:
    code, output = pytest_run("-k", "kafka", EGX_TEST_KAFKA="127.0.0.1:9", CI="true")
    assert code == 0
    assert "1 passed" in output


def test_a_half_named_server_is_refused_with_what_is_missing(pytest_run: Run) -> None:
    code, output = pytest_run(EGX_TEST_INFLUXDB_URL="http://127.0.0.1:9")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "EGX_TEST_INFLUXDB_TOKEN, EGX_TEST_INFLUXDB_ORG must be set too" in output

"""Requests answered in forks: none can hang, crash or leak into another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from connectors.errors import PermanentError
from connectors.workers import Died, Overran, Workers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
COMMAND = [sys.executable, "-m", "tests.connectors.answering"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": ROOT}


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(COMMAND, ENVIRONMENT)
    yield made
    made.close()
    assert_none_left()


def children() -> list[psutil.Process]:
    """The processes below this one that answer requests."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "tests.connectors.answering" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_none_left() -> None:
    _, alive = psutil.wait_procs(children(), timeout=10)
    assert alive == []


def test_a_request_is_answered_in_a_process_of_its_own(workers: Workers) -> None:
    answers = [workers.ask({"do": "echo", "say": number}, 10) for number in range(3)]
    assert [answer["said"] for answer in answers] == [0, 1, 2]
    assert len({answer["pid"] for answer in answers}) == 3
    assert len(children()) == 1


def test_many_threads_ask_at_once_and_each_gets_its_own_answer(workers: Workers) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda number: workers.ask({"do": "echo", "say": number}, 30)["said"], range(100)))
    assert answers == list(range(100))


def test_a_large_answer_comes_whole(workers: Workers) -> None:
    assert len(workers.ask({"do": "much", "size": 5_000_000}, 30)["text"]) == 5_000_000


def test_one_that_hangs_is_killed_at_its_deadline_and_holds_up_no_other(workers: Workers) -> None:
    workers.ask({"do": "echo", "say": 0}, 10)
    with ThreadPoolExecutor(1) as threads:
        began = time.monotonic()
        hanging = threads.submit(workers.ask, {"do": "hang"}, 1.0)
        while not hanging.done():
            assert workers.ask({"do": "echo", "say": 1}, 10)["said"] == 1
        with pytest.raises(Overran, match=r"within 1 s"):
            hanging.result()
        assert 1.0 <= time.monotonic() - began < 4.0
    assert len(children()) == 1


@pytest.mark.parametrize("request_", [{"do": "exit", "status": 3}, {"do": "fail"}], ids=["exit", "fail"])
def test_one_that_crashes_fails_alone(workers: Workers, request_: dict[str, object]) -> None:
    with pytest.raises(Died):
        workers.ask(request_, 10)
    assert workers.ask({"do": "echo", "say": 2}, 10)["said"] == 2
    assert len(children()) == 1


def test_a_dead_process_is_started_again(workers: Workers) -> None:
    with pytest.raises(Died):
        workers.ask({"do": "kill_server"}, 10)
    assert workers.ask({"do": "echo", "say": 3}, 10)["said"] == 3


HALF = """
import os, sys
sys.stdout.write('{"ready":true}\\n'); sys.stdout.flush()
sys.stdin.readline()
sys.stdout.write('{"number":0,"answ'); sys.stdout.flush()
os._exit(9)
"""


def test_a_process_that_dies_in_the_middle_of_an_answer_fails_the_request_at_once() -> None:
    workers = Workers([sys.executable, "-c", HALF], ENVIRONMENT)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(Died):
            workers.ask({}, 60)
        assert time.monotonic() - began < 30
    workers.close()


def test_a_request_to_a_process_that_was_just_killed_fails_at_once(workers: Workers) -> None:
    workers.ask({"do": "echo", "say": 0}, 10)
    children()[0].suspend()
    process = workers._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()  # as another thread does when it kills it
    with pytest.raises(Died):
        workers.ask({"do": "echo", "say": 1}, 60)


def test_a_stopped_process_fails_the_request_in_bounded_time(workers: Workers) -> None:
    workers.ask({"do": "echo", "say": 0}, 10)
    children()[0].suspend()
    began = time.monotonic()
    with pytest.raises(Overran):
        workers.ask({"do": "echo", "say": 1}, 0.5)
    assert time.monotonic() - began < 10
    assert workers.ask({"do": "echo", "say": 2}, 10)["said"] == 2


def test_it_rests_and_wakes(workers: Workers) -> None:
    workers.ask({"do": "echo", "say": 0}, 10)
    workers.rest()
    assert_none_left()
    assert workers.ask({"do": "echo", "say": 1}, 10)["said"] == 1


def test_closing_fails_what_is_under_way_at_once(workers: Workers) -> None:
    workers.ask({"do": "echo", "say": 0}, 10)
    with ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(workers.ask, {"do": "hang"}, 60)
        deadline = time.monotonic() + 10
        while len(children()) < 2 and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        workers.close()
        with pytest.raises(Died):
            hanging.result(10)
    with pytest.raises(Died):
        workers.ask({"do": "echo", "say": 1}, 10)


def test_a_process_that_does_not_start_is_an_error_for_somebody_to_mend() -> None:
    workers = Workers([*COMMAND, "broken"], ENVIRONMENT)
    with pytest.raises(PermanentError, match="did not start"):
        workers.ask({"do": "echo", "say": 1}, 10)
    workers.close()
    assert_none_left()


def test_nothing_is_left_of_an_asking_process_that_is_killed() -> None:
    script = (
        "import os, sys, threading; from connectors.workers import Workers\n"
        f"workers = Workers({COMMAND!r}, os.environ)\n"
        "workers.ask({'do': 'echo', 'say': 1}, 10)\n"
        "threading.Thread(target=workers.ask, args=({'do': 'hang'}, 60)).start()\n"
        "print('ready', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 10
        below = psutil.Process(asking.pid).children(recursive=True)
        while len(below) < 2 and time.monotonic() < deadline:
            below = psutil.Process(asking.pid).children(recursive=True)
        assert len(below) == 2
        asking.send_signal(signal.SIGKILL)
        asking.wait(10)
    _, alive = psutil.wait_procs(below, timeout=10)
    assert alive == []

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.progress import Handover, Progress, Reporter
from tests.dataflows.jobs import wait_for

OFFSETS = st.dictionaries(st.integers(0, 3), st.integers(0, 20_000), max_size=4)


def test_the_line_names_every_count() -> None:
    progress = Progress(source="SIMULATED", polled=1_234_567, unchanged=2, published=3, live=4, archived=5, rejected=6)
    progress.lag = {"a": {0: 3, 1: 4}, "b": {0: 1_000}}
    assert progress.line(8_900.4) == (
        "bars read 1,234,567  published 3 (2 unchanged)  live 4  archived 5  rejected 6  lag 1,007  8,900/s  [SIMULATED]"
    )
    progress.expired = 9
    assert "live 4 (9 older than the store keeps)" in progress.line(0)


@pytest.mark.parametrize(
    ("legs", "line"),
    [(("live",), "live 4  0/s"), (("archive",), "archived 5  0/s"), (("ingest",), "bars read 1  published 3  0/s")],
)
def test_the_line_is_about_the_legs_of_the_process(legs: tuple[str, ...], line: str) -> None:
    assert Progress(legs, polled=1, published=3, live=4, archived=5).line(0) == line


def test_lines_are_printed_while_something_happens_and_a_last_one(capfd: pytest.CaptureFixture[str]) -> None:
    progress, printed = Progress(), ""
    reporter = Reporter(progress, 0.01)
    rounds = 0

    class Ended(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal rounds
            rounds += 1
            return super().wait(timeout)

    reporter._ended = Ended()
    reporter.start()

    def more() -> bool:
        nonlocal printed
        printed += capfd.readouterr().err
        return f"bars read {progress.polled}" in printed

    for progress.polled in (1, 2):
        wait_for(more, "a line")
    before = rounds
    wait_for(lambda: rounds > before + 5, "five more rounds, in which nothing happens")
    assert capfd.readouterr().err == ""
    progress.polled = 3
    reporter.end()
    assert capfd.readouterr().err.splitlines()[-1].startswith("bars read 3 ")
    reporter.end()
    assert capfd.readouterr().err == ""


def test_what_changes_while_a_line_is_printed_is_in_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    progress, printed = Progress(polled=1), list[str]()

    def say(line: str) -> None:
        printed.append(line)
        progress.polled = 2

    monkeypatch.setattr("dataflows.progress.say_progress", say)
    reporter = Reporter(progress, 0.01)
    reporter.start()
    wait_for(lambda: len(printed) > 1, "a second line", seconds=5)
    reporter.silence()
    assert [line.split("  ")[0] for line in printed] == ["bars read 1", "bars read 2"]


def test_no_seconds_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(Progress(polled=1), 0)
    reporter.start()
    reporter.end()
    assert capfd.readouterr().err == ""


# The handover from ingest to the readers of the same process


def handover(*, bounded: bool = True, ends: dict[int, int] | None = None) -> tuple[Handover, Progress]:
    progress = Progress()
    return Handover(progress, ("live", "archive"), bounded=bounded, ends=ends or {}), progress


def test_readers_end_when_the_source_has_and_all_that_it_gave_is_written() -> None:
    given, progress = handover()
    progress.polled = 5
    given.written({0: 2, 1: 1})
    progress.published, progress.unchanged = 3, 2
    assert given.end() is None  # more may come
    given.source_ended()
    assert given.end() == {0: 2, 1: 1}
    progress.polled = 6  # one is on its way through the flow
    assert given.end() is None
    given.written({1: 2})
    progress.published = 4
    assert given.end() == {0: 2, 1: 2}


def test_readers_end_after_what_was_in_the_topic_at_the_start() -> None:
    given, progress = handover(bounded=False, ends={0: 7, 1: 0})
    given.source_ended()
    assert given.end() == {0: 7, 1: 0}
    progress.polled = progress.published = 1
    given.written({0: 9})
    assert given.end() == {0: 9, 1: 0}


@given(OFFSETS, OFFSETS, OFFSETS)
def test_the_source_waits_while_the_broker_holds_too_much_that_either_reader_has_not_read(
    written: dict[int, int], live: dict[int, int], archive: dict[int, int]
) -> None:
    given, _ = handover()
    given.written(written)
    given.read("live", live, {})
    given.read("archive", archive, {})
    unread = [end - min(live.get(partition, 0), archive.get(partition, 0)) for partition, end in written.items()]
    assert given.ready() == all(count < Handover.UNREAD for count in unread)
    unbounded, _ = handover(bounded=False)
    unbounded.written(written)
    assert unbounded.ready()


@given(OFFSETS, OFFSETS, OFFSETS)
def test_what_the_in_process_broker_holds_is_durable_when_both_groups_have_committed_it(
    written: dict[int, int], live: dict[int, int], archive: dict[int, int]
) -> None:
    given, _ = handover()
    given.committed("live", live)
    given.committed("archive", archive)
    assert given.durable(written) == all(
        live.get(partition, 0) >= end and archive.get(partition, 0) >= end for partition, end in written.items()
    )
    assert handover(bounded=False)[0].durable(written)


def test_commits_are_told_on_and_lags_kept_by_group() -> None:
    given, progress = handover()
    told = threading.Event()
    given.on_committed = told.set
    given.committed("live", {0: 1})
    assert told.is_set()
    given.read("live", {0: 1}, {0: 5, 1: 1})
    given.read("archive", {0: 1}, {0: 6})
    given.read("live", {0: 2}, {0: 4})  # another reader of the group
    assert progress.lag == {"live": {0: 4, 1: 1}, "archive": {0: 6}}

from __future__ import annotations

import datetime as dt
import tempfile
import threading
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows.bar import Bar
from dataflows.published import Published
from tests.dataflows.bars import NOW, bar, bars


def always(ends: Mapping[int, int]) -> bool:
    return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


def publish(memory: Published, made: list[Bar], end: int = 0) -> list[Bar]:
    """What of the bars is published, and written up to an offset of partition 0."""
    changed = memory.changed(made)
    memory.written(len(changed), {0: end})
    return changed


def test_only_what_is_new_or_has_changed_is_published(path: Path) -> None:
    memory = Published(path, "t", always)
    poll = [bar(symbol="A"), bar(symbol="B"), bar(symbol="A", interval="Weekly"), bar(symbol="A", exchange="X")]
    assert publish(memory, poll) == poll
    assert publish(memory, poll) == []
    changed = msgspec.structs.replace(poll[1], close=99.0)
    assert publish(memory, [poll[0], changed]) == [changed]
    assert publish(memory, [poll[1]]) == [poll[1]]  # back again is a change too


@pytest.mark.parametrize("field", ["open", "high", "low", "close", "volume", "source"])
def test_any_value_that_changes_is_a_change_also_to_and_from_absent(path: Path, field: str) -> None:
    memory = Published(path, "t", always)
    publish(memory, [bar()])
    for value in (None, "x" if field == "source" else 1, "y" if field == "source" else 2):
        changed = bar(**{field: value})
        assert publish(memory, [changed]) == [changed]
        assert publish(memory, [changed]) == []


def test_the_ingestion_time_is_no_change(path: Path) -> None:
    memory = Published(path, "t", always)
    publish(memory, [bar()])
    assert publish(memory, [bar(ingestion_timestamp=NOW), bar(ingestion_timestamp=None)]) == []


def test_a_bar_that_was_final_does_not_become_unfinished_again(path: Path) -> None:
    memory = Published(path, "t", always)
    assert len(publish(memory, [bar(is_final=False), bar(is_final=True)])) == 2
    assert publish(memory, [bar(is_final=False, close=1.0), bar(is_final=None)]) == []
    correction = bar(is_final=True, close=1.0)
    assert publish(memory, [correction]) == [correction]


def test_it_is_remembered_over_a_restart_for_each_target(path: Path) -> None:
    publish(Published(path, "t", always), [bar()])
    assert publish(Published(path, "t", always), [bar()]) == []
    assert publish(Published(path, "other", always), [bar()]) == [bar()]


def test_what_is_not_durable_is_published_again_after_a_crash_and_not_before(path: Path) -> None:
    durable = {0: 1}
    memory = Published(path, "t", lambda ends: all(durable.get(p, 0) >= end for p, end in ends.items()))
    first, second = bar(symbol="A"), bar(symbol="B")
    publish(memory, [first], end=1)
    publish(memory, [second], end=2)
    assert publish(memory, [first, second], end=2) == []
    assert Published(path, "t", always).changed([first, second]) == [second]  # a crash here
    durable[0] = 2
    memory.note()
    assert Published(path, "t", always).changed([first, second]) == []


def test_a_newer_version_on_its_way_outlives_the_note_of_an_older_one(path: Path) -> None:
    durable: dict[int, int] = {}
    memory = Published(path, "t", lambda ends: all(durable.get(p, 0) >= end for p, end in ends.items()))
    publish(memory, [bar(close=1.0)], end=1)
    newer = bar(close=2.0)
    assert memory.changed([newer]) == [newer]
    durable[0] = 1
    memory.note()
    assert memory.changed([newer]) == []


def test_many_bars_at_once_are_remembered_whatever_their_order(path: Path) -> None:
    made = [bar(symbol=f"A{at % 40}", datetime=NOW - dt.timedelta(days=1, minutes=at)) for at in range(700)]
    assert publish(Published(path, "t", always), made[::2]) == made[::2]
    memory = Published(path, "t", always)
    assert publish(memory, made) == made[1::2]  # older ones than the newest of their series, too
    assert publish(memory, made) == []
    assert publish(Published(path, "t", always), made) == []


def test_forgetting_makes_every_bar_new(path: Path) -> None:
    memory = Published(path, "t", always)
    publish(memory, [bar()])
    memory.forget()
    assert publish(memory, [bar()]) == [bar()]


@given(st.lists(st.tuples(st.integers(0, 4), st.datetimes(dt.datetime(2025, 1, 1), dt.datetime(2025, 1, 2)))))  # noqa: DTZ001
@settings(max_examples=min(settings.default.max_examples // 2, 200))
def test_stamps_strictly_increase_over_restarts_and_clocks_that_go_back(calls: list[tuple[int, dt.datetime]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, stamps = Path(folder) / "state.sqlite", []
        for number, (count, now) in enumerate(calls):
            memory = Published(path, "t", always)
            new = memory.changed([bar(symbol=f"A{number}.{at}") for at in range(count)])
            stamped = memory.stamp(new, now.replace(tzinfo=dt.UTC))
            memory.written(count, {})
            stamps += [made.ingestion_timestamp for made in stamped]
            assert [msgspec.structs.replace(made, ingestion_timestamp=bar().ingestion_timestamp) for made in stamped] == new
            assert all(stamp >= now.replace(tzinfo=dt.UTC) for stamp in stamps[len(stamps) - count :])
        assert all(earlier < later for earlier, later in pairwise(stamps))


@given(st.lists(bars(), max_size=8), st.lists(st.integers(0, 7), max_size=20))
@settings(max_examples=min(settings.default.max_examples // 2, 200))
def test_whatever_is_polled_the_last_published_version_is_the_last_polled(made: list[Bar], polls: list[int]) -> None:
    """But for bars that were final and are no more."""
    last: dict[tuple[object, ...], Bar] = {}
    published: dict[tuple[object, ...], Bar] = {}

    def identity(bar: Bar) -> tuple[object, ...]:
        return bar.exchange, bar.symbol, bar.interval, bar.datetime

    with tempfile.TemporaryDirectory() as folder:
        memory = Published(Path(folder) / "state.sqlite", "t", always)
        for poll in polls:
            some = made[poll:] + made[:poll]
            for polled in some:
                before = last.get(identity(polled))
                if not (before and before.is_final and not polled.is_final):
                    last[identity(polled)] = polled
            published |= {identity(bar): bar for bar in publish(memory, some)}

    def values(bars: Mapping[tuple[object, ...], Bar]) -> dict[tuple[object, ...], Bar]:
        return {key: msgspec.structs.replace(bar, ingestion_timestamp=None) for key, bar in bars.items()}

    assert values(published) == values(last)


def test_several_threads_may_use_it(path: Path) -> None:
    memory = Published(path, "t", always)
    failures: list[BaseException] = []

    def note() -> None:
        try:
            for _ in range(200):
                memory.note()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=note) for _ in range(3)]
    for thread in threads:
        thread.start()
    made = [bar(symbol=f"A{number}") for number in range(200)]
    for one in made:
        assert publish(memory, [one]) == [one]
    for thread in threads:
        thread.join()
    assert failures == []
    assert Published(path, "t", always).changed(made) == []

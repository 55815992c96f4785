"""The short form of the crash suite; `just crash` runs the long one."""

from pathlib import Path

import pytest

from tests.crash.suite import run


@pytest.mark.servers("kafka", "influxdb", "s3", "toxiproxy")
@pytest.mark.timeout(600)
def test_nothing_is_lost_and_nothing_doubled_through_twenty_faults(tmp_path: Path) -> None:
    result = run(20, seed=20, folder=tmp_path)

    assert result.faults.total() == 20
    assert result.bars > 5_000
    assert result.poison > 50
    assert {
        "archive lost": result.archive_lost,
        "archive doubled": result.archive_doubled,
        "live wrong": result.live_wrong,
        "dead letters wrong": result.dead_letters_wrong,
        "uncommitted": result.uncommitted,
    } == dict.fromkeys(("archive lost", "archive doubled", "live wrong", "dead letters wrong", "uncommitted"), 0)

"""The main job as people run it: a process of its own, from the source to both stores."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
import pytest

from connectors import kafka
from connectors.kafka import InProcessBroker, Record, Writer
from dataflows import dead_letters
from dataflows.bar import encode
from tests.dataflows.bars import bar, message
from tests.dataflows.jobs import BARS_AT, Folder, minute_bars, record_row, row, wait_for, write_csv

SYMBOLS = ("COMI", "ETEL", "SWDY")
SIMULATED = {"source": {"simulated": {"speed": 0, "history_sessions": 20}}}


def test_a_simulated_session_reaches_both_stores_and_a_second_run_publishes_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path, **SIMULATED)
    job = folder.run("main")
    assert job.process.returncode == 0, job.output
    counts = job.counts
    assert counts["bars read"] > 3_000
    assert counts["published"] == counts["live"] == counts["archived"] == counts["bars read"] - counts["unchanged"]
    assert (counts["lag"], counts["rejected"]) == (0, 0)
    assert "SIMULATED session: not real prices" in job.output
    records, rows = folder.archived(), folder.live()
    assert len(records) == counts["published"]
    stamps = [record["ingestion_timestamp"] for record in records]
    assert len(set(stamps)) == len(stamps)
    latest = {}
    for record in sorted(records, key=lambda record: str(record["ingestion_timestamp"])):
        latest[record_row(record)[:3]] = record_row(record)
    assert sorted(rows) == sorted(latest.values())
    assert {record["source"] for record in records} == {"simulated"}

    again = folder.run("main")
    assert again.process.returncode == 0, again.output
    assert again.counts["published"] == again.counts["live"] == again.counts["archived"] == 0
    assert again.counts["unchanged"] == again.counts["bars read"] == counts["bars read"]
    assert folder.live() == rows
    assert len(folder.archived()) == len(records)


@pytest.mark.parametrize("workers", [1, 2])
def test_asked_to_end_it_finishes_what_it_published_and_later_runs_complete_it(tmp_path: Path, workers: int) -> None:
    bars = minute_bars(SYMBOLS, 3_000)
    write_csv(tmp_path / "bars.csv", bars)
    paced = {"source": {"kind": "replay", "replay": {"path": "bars.csv", "speed": 6_000}}, "kafka": {"readers": workers}}
    folder, options, before = Folder(tmp_path, **paced), ("-w", str(workers)), 0
    for signum, more in ((signal.SIGTERM, 100), (signal.SIGINT, 300)):
        with folder.start("main", *options) as job:
            job.wait_for(lambda job=job, more=more: job.counts.get("live", 0) >= more, f"{more} live")
            assert job.end(signum) == 0, job.output
            done = job.counts
            assert done["published"] == done["live"] == done["archived"] > 0
            assert before + done["published"] < len(bars), "it was not in the middle"
            assert job.output.splitlines()[-1].startswith("bars read ")
        before += done["published"]
        assert len(folder.archived()) == len(folder.live()) == before
    folder.configure(source={"kind": "replay", "replay": {"path": "bars.csv"}})
    job = folder.run("main", *options)
    assert job.process.returncode == 0, job.output
    assert job.counts["unchanged"] == before
    expected = sorted(map(row, bars))
    assert sorted(map(record_row, folder.archived())) == expected
    assert sorted(folder.live()) == expected


def test_only_what_changed_is_published_again_as_a_new_version(tmp_path: Path) -> None:
    bars = minute_bars(SYMBOLS, 10)
    write_csv(tmp_path / "bars.csv", bars)
    folder = Folder(tmp_path, source={"kind": "replay", "replay": {"path": "bars.csv"}})
    assert folder.run("main").process.returncode == 0
    bars[7] = bar(**{key: getattr(bars[7], key) for key in ("symbol", "interval", "datetime")}, close=11.111, volume=None)
    write_csv(tmp_path / "bars.csv", bars)
    job = folder.run("main")
    assert (job.counts["published"], job.counts["unchanged"]) == (1, 29)
    assert sorted(folder.live()) == sorted(map(row, bars))
    assert len(folder.archived()) == 31


@pytest.fixture
def broker() -> InProcessBroker:
    """A broker in another process than the job's, this one."""
    broker = InProcessBroker()
    for topic in ("egx_market_data", "egx_market_data.dead_letter"):
        broker.create_topic(topic)
    return broker


POISON = [b"", b"\xff\xfe", b"{}", b"[" * 5_000, b"[]\n[]", message(close=-1), message(interval="Hourly"), message(symbol="../x")]


def test_poison_is_dead_lettered_with_where_it_stood_and_the_rest_goes_on(tmp_path: Path, broker: InProcessBroker) -> None:
    client = {"bootstrap.servers": broker.bootstrap_servers}
    topic, dead = "egx_market_data", "egx_market_data.dead_letter"
    writer = Writer(client, topic, stop=threading.Event())
    good = [msgspec.structs.replace(bar(), datetime=BARS_AT + number * dt.timedelta(days=1)) for number in range(len(POISON))]
    for value, kept in zip(POISON, good, strict=True):
        writer.write([Record(b"COMI", value), Record(b"COMI", encode(kept))])
    write_csv(tmp_path / "bars.csv", minute_bars(["ETEL"], 5))
    folder = Folder(
        tmp_path,
        source={"kind": "replay", "replay": {"path": "bars.csv"}},
        kafka={"bootstrap_servers": broker.bootstrap_servers},
    )
    job = folder.run("main")
    assert job.process.returncode == 0, job.output
    assert job.counts["rejected"] == 2 * len(POISON)
    assert sorted(folder.live()) == sorted(map(row, [*good, *minute_bars(["ETEL"], 5)]))
    assert sorted(map(record_row, folder.archived())) == sorted(folder.live())
    stood = {
        message.value() or b"": message for message in dead_letters.read(client, topic) if (message.value() or b"") in POISON
    }
    for leg in ("live", "archive"):
        letters = [letter for letter in dead_letters.read(client, dead) if kafka.headers(letter)["leg"] == leg]
        assert [letter.value() or b"" for letter in letters] == POISON
        for letter in letters:
            headers, origin = kafka.headers(letter), stood[letter.value() or b""]
            assert (headers["topic"], headers["partition"], headers["offset"]) == (
                topic,
                str(origin.partition()),
                str(origin.offset()),
            )
            assert headers["error"]
            assert letter.key() == b"COMI"


def test_with_a_broker_that_stays_it_also_reads_what_was_left_unread(tmp_path: Path, broker: InProcessBroker) -> None:
    bars = minute_bars(SYMBOLS, 1_000)
    write_csv(tmp_path / "bars.csv", bars)
    folder = Folder(
        tmp_path,
        source={"kind": "replay", "replay": {"path": "bars.csv"}},
        kafka={"bootstrap_servers": broker.bootstrap_servers},
    )
    with folder.start("ingest") as job:  # publishes everything, and nobody reads
        assert job.process.wait(60) == 0, job.output
        assert job.counts["published"] == len(bars)
    job = folder.run("main")
    assert job.process.returncode == 0, job.output
    assert (job.counts["published"], job.counts["unchanged"]) == (0, len(bars))
    assert sorted(folder.live()) == sorted(map(record_row, folder.archived())) == sorted(map(row, bars))


REAL = os.environ.get("EGX_DATA_DIR")


@pytest.mark.skipif(not REAL, reason="EGX_DATA_DIR names no folder with real bars")
def test_real_bars_arrive_once_and_to_the_last_digit(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    source = Path(REAL or "") / "intraday_1m"
    expected = []
    for file in sorted(source.glob("*.csv.gz")):
        with gzip.open(file, "rt", newline="") as lines:
            for line in csv.DictReader(lines):
                start = dt.datetime.fromisoformat(line["ts_utc"]).isoformat()
                prices = (float(line[key]) for key in ("open", "high", "low", "close"))
                expected.append((line["symbol"], "1 Minute", start, *prices, int(float(line["volume"]))))
    expected.sort()
    assert len(expected) > 100_000
    folder = Folder(tmp_path, source={"kind": "replay", "replay": {"path": str(source), "interval": "1 Minute"}})
    began, most = time.monotonic(), 0
    with folder.start("main") as job:
        watched = psutil.Process(job.process.pid)

        def over() -> bool:
            nonlocal most
            with suppress(psutil.NoSuchProcess):
                most = max(most, watched.memory_info().rss)
            return job.process.poll() is not None

        wait_for(over, "the end of the replay", 60)
    seconds = time.monotonic() - began
    print(f"{len(expected):,} bars in {seconds:.1f} s, at most {most / 1e6:.0f} MB")
    record_property("seconds", round(seconds, 1))
    record_property("megabytes", round(most / 1e6))
    assert job.process.returncode == 0, job.output
    assert sorted(folder.live()) == expected
    assert sorted(map(record_row, folder.archived())) == expected
    assert most < 400e6
    again = folder.run("main")
    assert (again.counts["published"], again.counts["live"]) == (0, 0)
    assert folder.count_live() == len(expected)

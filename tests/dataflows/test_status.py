"""`just status`: what it finds, what it says needs a look, and how it ends."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from connectors.kafka import Record, Topic, Writer, end_offsets, ensure_topics
from connectors.objects import Directory
from connectors.sqlite import open_table
from dataflows import alive, status
from dataflows.bar import CAIRO
from dataflows.calendar import egx, expected_session
from dataflows.dead_letters import read
from dataflows.gold import TITLES, Check, Schedule
from dataflows.live import TABLE
from dataflows.reports import LEGS, Figures, Report, is_alive, newest_by_leg, span, write_report
from dataflows.settings import Archive, Live, Metrics, Settings, Source
from dataflows.status import Fresh, Status, attention
from tests.dataflows.bars import message
from tests.dataflows.jobs import ROOT, Folder
from tests.servers.fixtures import InfluxdbServer, KafkaServer
from tests.servers.legs import run_to_the_end

NOW = dt.datetime(2025, 12, 9, 12, tzinfo=dt.UTC)


def report(leg: str, *, age: float = 1, ended: bool = False, error: str | None = None) -> Report:
    at = NOW.timestamp() - age
    return Report((leg,), 1, at - 3600, at, 5.0, "", ended, error, {leg: Figures(read=10, written=10)})


def looked_at(
    *reports: Report,
    lag: int = 0,
    letters: int | None = 0,
    quality: Sequence[Check] = (),
    schedule: Schedule | None = None,
) -> list[str]:
    return list(attention(Status(NOW, NOW.date(), list(reports), {"live": lag}, letters, [], list(quality), schedule, [], {})))


def test_a_leg_that_runs_needs_no_look() -> None:
    assert looked_at(report("live")) == []


def test_a_leg_that_ended_well_needs_no_look() -> None:
    assert looked_at(report("live", age=1e6, ended=True)) == []


def test_a_leg_that_failed_is_named_with_its_reason() -> None:
    assert looked_at(report("live", ended=True, error="no token")) == ["live ended: no token"]


def test_a_leg_that_was_killed_is_missed_after_a_minute() -> None:
    assert looked_at(report("archive", age=64)) == []
    assert looked_at(report("archive", age=66)) == ["archive has not reported for 66 s: start it again"]


def test_lag_and_dead_letters_need_a_look() -> None:
    said = looked_at(report("live"), lag=10_001, letters=3)
    assert said == ["live is 10,001 messages behind", "3 open dead letters: `just dead-letters` lists them"]


def test_what_was_rejected_needs_a_look_where_no_dead_letters_outlive_the_process() -> None:
    rejecting = report("live")
    rejecting.figures["live"].rejected = 7
    assert looked_at(rejecting, letters=0) == []
    assert looked_at(rejecting, letters=None) == ["live has rejected 7 messages: its log says why"]


def test_the_newest_day_s_doubts_need_a_look_and_older_ones_do_not() -> None:
    said = looked_at(report("live"), quality=[Check("bars", 900, 32, 2), Check("anomaly", 0, 5, 0)])
    assert said == ["data quality: 2 of the newest day's bars to look at, in gold.vw_gold_data_quality"]


def test_every_check_of_the_warehouse_has_a_title() -> None:
    model = (ROOT / "warehouse/models/gold/vw_gold_data_quality.sql").read_text()
    (names,) = re.findall(r"check_name = '([^']+)'", model)
    assert set(names.split(", ")) == set(TITLES)
    assert set(re.findall(r"'(\w+)' AS check_name", model)) <= set(TITLES)


def test_a_warehouse_run_that_failed_or_did_not_take_place_needs_a_look() -> None:
    soon = NOW + dt.timedelta(hours=1)
    assert looked_at(report("live"), schedule=Schedule(soon, NOW, 5.0, True)) == []
    assert looked_at(report("live"), schedule=Schedule(soon, NOW, 5.0, False)) == [
        "the last warehouse run failed: its log says why"
    ]
    (said,) = looked_at(report("live"), schedule=Schedule(NOW - dt.timedelta(hours=31), NOW, 5.0, True))
    assert said.startswith("the warehouse run of 2025-12-08 05:00 UTC has not taken place")


def test_a_store_that_lacks_the_expected_session_is_named_with_the_symbols() -> None:
    fresh = [Fresh("COMI"), Fresh("ETEL", behind=("archive",)), Fresh("SWDY", behind=("live", "archive"))]
    assert list(attention(Status(NOW, NOW.date(), [report("live")], {}, 0, fresh, [], None, [], {}))) == [
        "the live store has no bar of 2025-12-09 of SWDY",
        "the archive has no bar of 2025-12-09 of ETEL, SWDY",
    ]


def test_a_leg_s_newest_report_counts_whichever_process_wrote_it() -> None:
    together = report("live", age=900, ended=True, error="an old error")
    together.legs, together.figures = LEGS, {leg: Figures() for leg in LEGS}
    found = newest_by_leg([report("live"), together])
    assert {leg: newest.error for leg, (newest, _) in found.items()} == {
        "ingest": "an old error",
        "live": None,
        "archive": "an old error",
    }


def test_a_report_of_the_future_is_not_alive() -> None:
    assert is_alive(report("live"), NOW.timestamp())
    assert not is_alive(report("live", age=-3600), NOW.timestamp())


def test_a_leg_that_could_not_start_says_so_in_its_report(tmp_path: Path) -> None:
    folder = Folder(tmp_path, kafka={"bootstrap_servers": "127.0.0.1:1"})
    assert folder.run("live").process.returncode == 1
    code, _, errors = run_status(folder, "live", module="alive")
    assert code == 1
    assert errors.startswith("egx: live ended: no Kafka broker answers at 127.0.0.1:1")


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2025-12-07T10:44", "2025-12-04"),  # Sunday, not long open: Thursday's is the newest that must be there
        ("2025-12-07T10:45", "2025-12-07"),
        ("2025-12-06T12:00", "2025-12-04"),  # Saturday
        ("2025-12-09T23:59", "2025-12-09"),
    ],
)
def test_what_must_be_there_goes_by_the_calendar(time: str, expected: str) -> None:
    at = dt.datetime.fromisoformat(time).replace(tzinfo=CAIRO).astimezone(dt.UTC)
    assert expected_session(egx(), at).date == dt.date.fromisoformat(expected)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0621, "0.062 s"), (9.94, "9.9 s"), (119, "119 s"), (720, "12 min"), (12_240, "3.4 h"), (440_640, "5.1 d")],
)
def test_spans_are_for_people(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_gold_has_a_renamed_company_under_its_new_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(status, "newest_days", lambda: {"VLMR": NOW.date(), "COMI": NOW.date()})
    settings = Settings(
        source=Source(symbols=("COMI", "EKHO", "ETEL")), live=Live(sqlite=tmp_path / "none"), archive=Archive(url=str(tmp_path))
    )
    Settings.file = tmp_path / "config.yaml"
    found = status.freshness(settings, NOW.date(), {}, NOW, {})
    assert [fresh.gold for fresh in found] == [NOW.date(), NOW.date(), None]


def test_only_daily_and_intraday_bars_tell_whether_a_session_is_there(tmp_path: Path) -> None:
    settings = Settings(
        source=Source(kind="replay", symbols=("COMI", "ETEL")),
        live=Live(sqlite=tmp_path / "live"),
        archive=Archive(url=str(tmp_path)),
    )
    Settings.file = tmp_path / "config.yaml"
    start, connection = f"{NOW:%Y-%m-%d}T08:00:00+00:00", open_table(settings.live.sqlite, TABLE)
    for symbol, interval in (("COMI", "1 Minute"), ("ETEL", "Weekly"), ("LEFT", "Daily")):
        line = message(symbol=symbol, interval=interval, datetime=start)
        Directory(tmp_path).put(f"date={NOW:%Y-%m-%d}/symbol={symbol}/0-0-0.json", line)
        connection.execute(TABLE.upsert(), ("EGX", symbol, interval, start, 1, 1, 1, 1, 1, 1, start, "test"))
    connection.commit()
    connection.close()
    comi, etel, _ = status.freshness(settings, NOW.date(), {}, NOW, {})
    assert (comi.live, comi.archive, comi.behind) == (NOW.date(), NOW.date(), ())
    assert (etel.live, etel.archive, etel.behind) == (None, None, ("live", "archive"))
    tomorrow = status.freshness(settings, NOW.date() + dt.timedelta(days=1), {}, NOW, {})
    assert [bool(one.behind) for one in tomorrow] == [True, True, False], "LEFT was taken out of source.symbols"
    weekly = msgspec.structs.replace(settings, source=Source(kind="replay", symbols=("ETEL",), interval="Weekly"))
    assert {one.behind for one in status.freshness(weekly, NOW.date(), {}, NOW, {})} == {()}, "no session's bar is expected"


def run_status(folder: Folder, *arguments: str, module: str = "status", **variables: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", f"dataflows.{module}", *arguments],
        env=folder.environment(EGX_WAREHOUSE=str(folder.path / "warehouse"), **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_after_a_run_of_the_main_job_it_says_what_was_done_and_that_all_is_well(tmp_path: Path) -> None:
    folder = Folder(tmp_path, source={"simulated": {"speed": 0, "history_sessions": 5, "minutes": 30}})
    job = folder.run("main")
    assert job.process.returncode == 0, job.output
    code, text, _ = run_status(folder)
    assert code == 0, text
    assert text.rstrip().endswith("all well")
    code, text, _ = run_status(folder, "--json")
    found = json.loads(text)
    assert found["reports"][0]["figures"]["live"]["written"] == job.counts["live"]
    assert found["lag"] == {"live": 0, "archive": 0}
    assert [fresh["symbol"] for fresh in found["fresh"]] == sorted(fresh["symbol"] for fresh in found["fresh"])
    assert all(fresh["live"] == fresh["archive"] and fresh["ingested_at"] for fresh in found["fresh"])
    assert all(fresh["live"] and fresh["kafka"] is None for fresh in found["fresh"])


def test_where_nothing_ever_ran_it_says_so_and_ends_with_1(tmp_path: Path) -> None:
    code, text, _ = run_status(Folder(tmp_path))
    assert code == 1
    assert "no leg has reported yet" in text


def test_with_wrong_settings_it_ends_with_2_and_one_line(tmp_path: Path) -> None:
    code, text, errors = run_status(Folder(tmp_path), EGX_LIVE__STORE="excel")
    assert (code, text) == (2, "")
    assert errors.startswith("egx: setting live.store: 'excel'")
    assert errors.count("\n") == 1


def test_what_does_not_answer_is_said_and_the_rest_is_told_all_the_same(tmp_path: Path) -> None:
    folder = Folder(
        tmp_path,
        source={"kind": "replay", "symbols": ["COMI"]},
        kafka={"bootstrap_servers": "127.0.0.1:1", "client": {"no.such": 1}},
        archive={"url": "archive"},
    )
    for path in (
        "data/live.sqlite",
        "data/status/live.json",
        "warehouse/gold/vw_gold_data_quality.parquet",
        "warehouse/schedule.json",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text('{"legs":["li')  # as much of it as the disk had
    write_report(tmp_path / "data/status/archive.json", report("archive", ended=True))
    Directory(tmp_path / "archive").put("date=2025-05-06/symbol=COMI/0-0-0.json", message(datetime="2025-05-06T07:00:00Z"))
    code, text, errors = run_status(folder)
    assert (code, errors) == (2, "")
    for said in (
        "! Kafka cannot be asked: no Kafka client can be made of these settings",
        "! the live store cannot be asked: file is not a database",
        "! live ended: its report ",
        "! gold cannot be asked: ",
        "! the warehouse's schedule cannot be asked: ",
        "schedule.json cannot be read (Input data was truncated): start the schedule again",
    ):
        assert said in " ".join(text.split()), said
    (row,) = re.findall(r"^\W*COMI .*", text, re.MULTILINE)
    assert re.findall(r"[\w-]+", row) == ["COMI", "unknown", "2025-05-06"]
    assert re.search(r"^\W*archive +\W+ended ", text, re.MULTILINE)
    assert "the archive has no bar of" in text
    assert "the live store has no bar of" not in text, "nobody knows"


def test_an_influxdb_that_is_away_hides_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path, live={"store": "influxdb"}, influxdb={"url": "http://127.0.0.1:1"})
    code, text, _ = run_status(folder, "--json", EGX_INFLUXDB__TOKEN="token")
    found = json.loads(text)
    assert (code, list(found["unknown"])) == (2, ["live"])
    assert found["unknown"]["live"].startswith("InfluxDB at http://127.0.0.1:1 does not answer")
    assert found["fresh"]


def test_symbols_without_a_bar_of_the_expected_session_are_named(tmp_path: Path) -> None:
    source = {"kind": "replay", "symbols": ["COMI", "ESRS"], "replay": {"path": "bars.csv", "interval": "Daily"}}
    (tmp_path / "bars.csv").write_text("symbol,datetime,open,high,low,close,volume\nCOMI,2020-01-05T08:00:00Z,1,1,1,1,1\n")
    folder = Folder(tmp_path, source=source)
    assert folder.run("main").process.returncode == 0
    code, text, _ = run_status(folder)
    assert code == 1
    for store in ("live store", "archive"):
        named = next(line for line in text.splitlines() if f"the {store} has no bar of" in line)
        assert named.endswith("of COMI"), "ESRS is delisted: no bar of it is missed"


def test_health_checks_see_a_leg_run_fail_and_never_start(tmp_path: Path) -> None:
    settings = Settings(metrics=Metrics(folder=tmp_path), live=Live())
    Settings.file = tmp_path / "config.yaml"
    now = NOW.timestamp()
    assert alive.failing(settings, "live", now) == f"live has never reported in {tmp_path}"
    write_report(tmp_path / "live.json", report("live"))
    assert alive.failing(settings, "live", now) is None
    write_report(tmp_path / "live.json", report("live", age=300))
    assert alive.failing(settings, "live", now) == "live last reported 5 min ago"
    write_report(tmp_path / "live.json", report("live", age=300, ended=True))
    assert alive.failing(settings, "live", now) == "live ended 5 min ago"
    write_report(tmp_path / "live.json", report("live", ended=True, error="no token"))
    assert alive.failing(settings, "live", now) == "live ended: no token"
    (tmp_path / "live.json").write_bytes(b"")
    said = alive.failing(settings, "live", (tmp_path / "live.json").stat().st_mtime)
    assert said is not None
    assert said.startswith(f"live ended: its report {tmp_path / 'live.json'} cannot be read")


def test_the_health_check_ends_with_1_and_one_line(tmp_path: Path) -> None:
    code, _, errors = run_status(Folder(tmp_path), "archive", module="alive")
    assert code == 1
    assert errors == f"egx: archive has never reported in {tmp_path / 'data/status'}\n"


def test_with_real_servers_lag_dead_letters_and_freshness_are_theirs(
    tmp_path: Path, kafka: KafkaServer, influxdb: InfluxdbServer, unique_name: str
) -> None:
    client, letters = {"bootstrap.servers": kafka.bootstrap}, f"{unique_name}.dead_letter"
    ensure_topics(client, [Topic(unique_name, 2, 7), Topic(letters, 2, 7)])
    day = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(hours=1)
    values = [
        message(symbol="COMI", datetime=(day - dt.timedelta(days=1)).isoformat()),
        message(symbol="COMI", datetime=day.isoformat(), interval="1 Minute"),  # InfluxDB has it before the series of days
        message(symbol="SWDY", datetime=day.isoformat(), interval="Weekly"),  # of which day is it?
        message(symbol="ETEL", close=-1),
        b"{}",
    ]
    Writer(client, unique_name, stop=threading.Event()).write(Record(b"key", value) for value in values)
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
        "KAFKA__TOPIC": unique_name,
        "KAFKA__DEAD_LETTER_TOPIC": letters,
        "LIVE__GROUP": f"{unique_name}-live",
        "LIVE__STORE": "influxdb",
        "INFLUXDB__URL": influxdb.url,
        "INFLUXDB__ORG": influxdb.org,
        "INFLUXDB__TOKEN": influxdb.token,
        "INFLUXDB__BUCKET": unique_name,
        "ARCHIVE__GROUP": f"{unique_name}-archive",
        "METRICS__FOLDER": str(tmp_path / "status"),
    }
    run_to_the_end("live", settings, f"{unique_name}-live", unique_name)
    code, text, errors = run_status(Folder(tmp_path), "--json", **{f"EGX_{key}": value for key, value in settings.items()})
    assert code == 1, errors
    found = json.loads(text)
    assert found["lag"] == {"live": 0, "archive": 5}, "the archive leg never ran: the broker knows"
    assert found["dead_letters"] == 2
    stores = {fresh["symbol"]: (fresh["kafka"], fresh["live"], fresh["archive"]) for fresh in found["fresh"]}
    today = day.astimezone(CAIRO).date().isoformat()
    assert stores["COMI"] == (today, today, None)
    assert stores["SWDY"] == (None, None, None)
    last = {partition: end - 1 for partition, end in end_offsets(client, unique_name).items() if end}
    assert [message.value() for message in read(client, unique_name, last)] == [b"{}"], "only the newest are read"

"""Objects read back from S3, as from a folder."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from connectors.errors import PermanentError
from connectors.objects import Directory, ReadableStore
from connectors.s3 import Bucket
from dataflows import archived

LINE = (
    b'{"symbol":"%s","exchange":"EGX","interval":"Daily","datetime":"%sT07:00:00Z","open":1.0,"high":1.0,"low":1.0,'
    b'"close":1.0,"volume":5,"ingestion_timestamp":"2025-05-04T12:00:00Z","source":"egxpy","is_final":true}\n'
)
NOW = dt.datetime(2025, 5, 8, tzinfo=dt.UTC)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield Bucket("bars", "streaming/", region="us-east-1")


def test_keys_come_in_order_from_one_on_and_beyond_a_page(bucket: Bucket) -> None:
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.put_object(Bucket="bars", Key="another/date=2025-05-04/symbol=COMI/1.json", Body=b"")
    keys = [f"date=2025-05-{day:02}/symbol=S{number:03}/1.json" for day in (3, 4) for number in range(600)]
    for key in keys:
        s3.put_object(Bucket="bars", Key=f"streaming/{key}", Body=b"")
    assert list(bucket.keys()) == keys
    assert list(bucket.keys("date=2025-05-04")) == keys[600:]
    assert list(bucket.keys(keys[-2])) == keys[-1:]


def test_an_object_comes_back_and_a_missing_one_is_an_error_that_names_it(bucket: Bucket) -> None:
    bucket.put("date=2025-05-04/symbol=COMI/1.json", b"{}\n")
    assert bucket.get("date=2025-05-04/symbol=COMI/1.json") == b"{}\n"
    with pytest.raises(PermanentError, match=r"s3://bars/streaming/date=2025-05-05/symbol=COMI/1.json"):
        bucket.get("date=2025-05-05/symbol=COMI/1.json")


def test_a_bucket_that_may_not_be_read_is_an_error_that_says_so(bucket: Bucket) -> None:
    boto3.client("s3", region_name="us-east-1").delete_bucket(Bucket="bars")
    with pytest.raises(PermanentError, match="s3:ListBucket"):
        list(bucket.keys())


def test_an_archive_in_s3_reads_like_one_in_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    folder = Directory(tmp_path)
    for store in (bucket, folder):
        store.put("date=2025-05-04/symbol=COMI/120000000000-0-000000000000000000.json", LINE % (b"COMI", b"2025-05-04"))
    day = dt.date(2025, 5, 4)
    found = [archived.read(store, "EGX", ["COMI"], day, day, NOW) for store in (bucket, folder)]
    assert found[0] == found[1]
    assert [bar.volume for bar in found[0]["COMI", "Daily"].values()] == [5]


class Counted:
    """A store that notes what it is asked for."""

    def __init__(self, store: ReadableStore) -> None:
        self._store = store
        self.listed: list[str] = []
        self.read: list[str] = []

    def keys(self, after: str = "") -> Iterator[str]:
        self.listed.append(after)
        yield from self._store.keys(after)

    def folders(self, folder: str = "") -> list[str]:
        self.listed.append(folder)
        return self._store.folders(folder)

    def get(self, key: str) -> bytes:
        self.read.append(key)
        return self._store.get(key)


def filled(store: Bucket | Directory, deliveries: dict[str, list[tuple[str, str]]]) -> Counted:
    """A store with these objects: the date of a delivery -> symbol and day of each object's bar, in order."""
    for date, objects in deliveries.items():
        for number, (symbol, day) in enumerate(objects):
            store.put(f"date={date}/symbol={symbol}/{number:012}-0-{number:018}.json", LINE % (symbol.encode(), day.encode()))
    return Counted(store)


DELIVERIES = {
    "2025-05-04": [("COMI", "2025-05-04"), ("GONE", "2025-05-04")],
    "2025-05-05": [("COMI", "2025-05-05"), ("ETEL", "2025-05-05"), ("LATE", "2025-05-05")],
    "2025-05-06": [("COMI", "2025-05-06"), ("COMI", "2025-05-06"), ("ETEL", "2025-05-06"), ("ETEL", "2024-01-02")],
}


def test_the_newest_day_of_each_symbol_is_found_in_s3_as_in_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    for store in (filled(bucket, DELIVERIES), filled(Directory(tmp_path), DELIVERIES)):
        expected = dt.date(2025, 5, 6)
        found = archived.newest_days(store, "EGX", ["COMI", "ETEL", "LATE", "GONE", "NONE"], expected, NOW)
        assert found == {
            "COMI": dt.date(2025, 5, 6),
            "ETEL": dt.date(2025, 5, 6),  # in spite of a backfill after it
            "LATE": dt.date(2025, 5, 5),
            "GONE": dt.date(2025, 5, 4),
        }
        assert archived.newest_days(store, "ABC", ["COMI"], expected, NOW) == {}


@pytest.mark.parametrize("expected", [dt.date(2025, 5, 6), dt.date(2025, 5, 7)], ids=["fresh", "the source is dead"])
def test_one_listing_and_one_object_a_symbol_are_read_of_a_large_archive(tmp_path: Path, expected: dt.date) -> None:
    days = [f"2025-04-{day:02}" for day in range(1, 31)] + ["2025-05-06"]
    store = filled(Directory(tmp_path), {day: [("COMI", day), ("COMI", day), ("ETEL", day)] for day in days})
    archived.newest_days(store, "EGX", ["COMI", "ETEL"], expected, NOW, parallel=1)
    assert store.read == [
        "date=2025-05-06/symbol=COMI/000000000001-0-000000000000000001.json",
        "date=2025-05-06/symbol=ETEL/000000000002-0-000000000000000002.json",
    ]
    assert [place for place in store.listed if "symbol=" in place] == [
        "date=2025-05-06/symbol=COMI/",
        "date=2025-05-06/symbol=ETEL/",
    ]
    assert len(store.listed) <= 1 + archived.DATES + 2


def test_a_symbol_that_is_no_longer_delivered_does_not_have_the_whole_archive_read(tmp_path: Path) -> None:
    days = [f"2025-04-{day:02}" for day in range(1, archived.DATES + 1)]
    old = [("COMI", "2024-01-02")] * (archived.OBJECTS + 1)
    store = filled(Directory(tmp_path), {"2025-03-31": [("GONE", "2025-03-31")], **dict.fromkeys(days, old)})
    found = archived.newest_days(store, "EGX", ["COMI", "GONE"], dt.date(2025, 5, 6), NOW)
    assert found == {"COMI": dt.date(2024, 1, 2)}
    assert len(store.read) == archived.DATES * archived.OBJECTS

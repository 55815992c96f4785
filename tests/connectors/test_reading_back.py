"""Objects read back from S3, as from a folder."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from connectors.errors import PermanentError
from connectors.objects import Directory
from connectors.s3 import Bucket
from dataflows import archived


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


def test_an_archive_in_s3_reads_like_one_in_a_folder(bucket: Bucket, tmp_path: object) -> None:
    line = (
        b'{"symbol":"COMI","exchange":"EGX","interval":"Daily","datetime":"2025-05-04T07:00:00Z","open":1.0,"high":1.0,"low":1.0,'
        b'"close":1.0,"volume":5,"ingestion_timestamp":"2025-05-04T12:00:00Z","source":"egxpy","is_final":true}\n'
    )
    folder = Directory(tmp_path)  # type: ignore[arg-type]
    for store in (bucket, folder):
        store.put("date=2025-05-04/symbol=COMI/120000000000-0-000000000000000000.json", line)
    day, now = dt.date(2025, 5, 4), dt.datetime(2025, 5, 5, tzinfo=dt.UTC)
    found = [archived.read(store, "EGX", ["COMI"], day, day, now) for store in (bucket, folder)]
    assert found[0] == found[1]
    assert [bar.volume for bar in found[0]["COMI", "Daily"].values()] == [5]

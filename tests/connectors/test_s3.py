from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from connectors.errors import PermanentError, TransientError
from connectors.s3 import Bucket
from tests.connectors.loopback import Answer, Loopback, Request, answering


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Credentials of a test's own, and none of the machine's."""
    for name in (
        "AWS_PROFILE",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return monkeypatch


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield


def stored(name: str) -> dict[str, bytes]:
    client = boto3.client("s3", region_name="us-east-1")
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=name).get("Contents", [])]
    return {key: client.get_object(Bucket=name, Key=key)["Body"].read() for key in keys}


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("region", [None, "us-east-1", "eu-central-1", "me-south-1"])
def test_a_missing_bucket_is_made_in_the_region(region: str | None) -> None:
    Bucket("archive", region=region).put("a/1.json", b"x\n")
    assert stored("archive") == {"a/1.json": b"x\n"}
    where = boto3.client("s3", region_name="us-east-1").get_bucket_location(Bucket="archive")["LocationConstraint"]
    assert where == (None if region in (None, "us-east-1") else region)


@pytest.mark.usefixtures("aws")
def test_a_bucket_that_is_there_is_left_as_it_is_and_written_below_the_prefix() -> None:
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="archive")
    boto3.client("s3", region_name="us-east-1").put_object(Bucket="archive", Key="other", Body=b"o")
    bucket = Bucket("archive", "streaming/egx/", region="us-east-1")
    bucket.put("date=2025-12-07/symbol=A.B_1/1.json", b"x\n")
    bucket.put("date=2025-12-07/symbol=A.B_1/1.json", b"y\n")
    assert stored("archive") == {"other": b"o", "streaming/egx/date=2025-12-07/symbol=A.B_1/1.json": b"y\n"}


@pytest.mark.usefixtures("aws")
def test_storage_class_and_encryption_are_passed_on() -> None:
    bucket = Bucket("archive", region="us-east-1", storage_class="STANDARD_IA", encryption="aws:kms", kms_key_id="a-key")
    bucket.put("1.json", b"x")
    head = boto3.client("s3", region_name="us-east-1").head_object(Bucket="archive", Key="1.json")
    assert (head["StorageClass"], head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("STANDARD_IA", "aws:kms", "a-key")


@pytest.mark.usefixtures("aws")
def test_a_key_that_would_leave_the_prefix_is_refused() -> None:
    bucket = Bucket("archive", "streaming/", region="us-east-1")
    with pytest.raises(PermanentError, match="no object key"):
        bucket.put("../1.json", b"x")
    assert stored("archive") == {}


def test_no_credentials_is_said_with_where_they_may_come_from(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("AWS_ACCESS_KEY_ID")
    environment.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(PermanentError, match="no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Bucket("archive", endpoint_url="http://127.0.0.1:9", region="us-east-1")


def refusal(status: int, code: str, **headers: str) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>so it is</Message></Error>"
    return Answer(status, body.encode(), {"Content-Type": "application/xml", **headers})


LISTED = Answer(200, b"<?xml version='1.0'?><ListBucketResult><Name>archive</Name></ListBucketResult>")

OK = Answer()


def scripted(*puts: Answer, lists: Answer = LISTED, makes: Answer = OK) -> Any:
    """Answers of an S3 server to listing, making a bucket, and the puts in turn."""
    left = iter(puts)

    def answer(request: Request) -> Answer:
        if request.method == "GET":
            return lists
        if request.path == "/archive":
            return makes
        return next(left, Answer())

    return answering(answer)


def puts(server: Loopback) -> list[Request]:
    return [request for request in server.requests if request.method == "PUT" and request.path != "/archive"]


@pytest.mark.parametrize("code", ["AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId"])
def test_a_put_that_is_not_allowed_is_permanent_and_names_what_is_needed(code: str) -> None:
    with scripted(refusal(403, code)) as server:
        bucket = Bucket("archive", "p/", endpoint_url=server.url, region="us-east-1")
        with pytest.raises(PermanentError) as caught:
            bucket.put("a/1.json", b"x")
        assert len(puts(server)) == 1
    message = str(caught.value)
    assert "cannot write (s3:PutObject) s3://archive/p/a/1.json" in message
    assert f"{code} so it is" in message
    assert "credentials" in message


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidAccessKeyId"])
def test_wrong_credentials_show_at_the_start(code: str) -> None:
    with scripted(lists=refusal(403, code)) as server, pytest.raises(PermanentError, match=f"bucket archive .*{code}"):
        Bucket("archive", endpoint_url=server.url, region="us-east-1")


def test_an_account_that_may_put_but_not_list_is_let_be() -> None:
    with scripted(lists=refusal(403, "AccessDenied")) as server:
        Bucket("archive", endpoint_url=server.url, region="us-east-1").put("1.json", b"x")
        assert [request.body for request in puts(server)] != []


def test_a_bucket_that_may_not_be_made_is_permanent() -> None:
    with (
        scripted(lists=refusal(404, "NoSuchBucket"), makes=refusal(403, "AccessDenied")) as server,
        pytest.raises(PermanentError, match=r"cannot make \(s3:CreateBucket\) bucket archive"),
    ):
        Bucket("archive", endpoint_url=server.url, region="us-east-1")


@pytest.mark.parametrize("code", ["BucketAlreadyOwnedByYou", "BucketAlreadyExists"])
def test_somebody_else_may_have_made_it_meanwhile(code: str) -> None:
    with scripted(lists=refusal(404, "NoSuchBucket"), makes=refusal(409, code)) as server:
        Bucket("archive", endpoint_url=server.url, region="us-east-1").put("1.json", b"x")
        assert len(puts(server)) == 1


@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (400, "RequestTimeout"), (429, "TooMany")]
)
def test_a_server_in_trouble_is_transient_and_works_when_it_has_passed(status: int, code: str) -> None:
    busy = refusal(status, code, **{"Retry-After": "7"})
    with scripted(busy, busy) as server:
        bucket = Bucket("archive", endpoint_url=server.url, region="us-east-1")
        with pytest.raises(TransientError, match=code) as caught:
            bucket.put("a/1.json", b"x")
        assert caught.value.retry_after == 7
        with suppress(TransientError):  # where the client has not tried twice by itself
            bucket.put("a/1.json", b"x")
        bucket.put("a/1.json", b"x")
        assert len(puts(server)) >= 3


def test_no_server_at_the_address_is_transient_and_names_the_setting() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(TransientError, match=r"does not answer .*check archive\.s3\.endpoint_url"):
            Bucket("archive", endpoint_url=url, region="us-east-1")


def test_a_server_that_went_away_is_transient() -> None:
    with scripted() as server:
        bucket = Bucket("archive", endpoint_url=server.url, region="us-east-1")
    with pytest.raises(TransientError, match="does not answer"):
        bucket.put("a/1.json", b"x")


def test_a_server_that_is_silent_is_given_up_in_time(environment: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TransientError, match="does not answer"):
            Bucket("archive", endpoint_url=url, region="us-east-1", timeout_seconds=0.1)


def test_a_name_that_is_no_buckets_is_permanent() -> None:
    with pytest.raises(PermanentError, match="Not A Bucket"):
        Bucket("Not A Bucket", endpoint_url="http://127.0.0.1:9", region="us-east-1")

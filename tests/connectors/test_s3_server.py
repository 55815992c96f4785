"""The archive's output against a real S3 server."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from connectors.errors import PermanentError
from connectors.objects import ObjectSink, Piece
from connectors.s3 import Bucket
from tests.servers.fixtures import S3Server
from tests.servers.s3 import S3


def login(monkeypatch: pytest.MonkeyPatch, access_key: str, secret_key: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret_key)


def test_a_missing_bucket_is_made_and_objects_come_back_whole(
    s3: S3Server, unique_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(monkeypatch, s3.access_key, s3.secret_key)
    sink = ObjectSink(
        lambda: Bucket(unique_name, "streaming/", endpoint_url=s3.endpoint, region=s3.region), stop=threading.Event(), parallel=8
    )
    partition = sink.build_part("step", "0", None)
    lines = {f"date=2025-01-01/symbol=S{i}": [b"%d" % i, b"more"] for i in range(40)}

    partition.write_batch([[Piece(folder, 0, 0, "1.json", content) for folder, content in lines.items()]])
    partition.snapshot()

    listed = s3.client().list_objects_v2(Bucket=unique_name)["Contents"]
    bodies = {item["Key"]: s3.client().get_object(Bucket=unique_name, Key=item["Key"])["Body"].read() for item in listed}
    assert bodies == {f"streaming/{folder}/1.json": b"\n".join(content) + b"\n" for folder, content in lines.items()}


def test_wrong_credentials_stop_at_once_and_name_bucket_and_action(
    s3: S3Server, unique_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(monkeypatch, s3.access_key, s3.secret_key)
    Bucket(unique_name, endpoint_url=s3.endpoint, region=s3.region)

    for access_key, secret_key in ((s3.access_key, "wrong"), ("nobody", "wrong")):
        login(monkeypatch, access_key, secret_key)
        with pytest.raises(PermanentError, match=f"{unique_name}.*check the credentials"):
            Bucket(unique_name, endpoint_url=s3.endpoint, region=s3.region)


@pytest.mark.servers("s3")
def test_an_account_without_rights_is_told_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3(tmp_path / "s3") as server:
        login(monkeypatch, server.secrets["access_key"], server.secrets["secret_key"])
        Bucket("owned", endpoint_url=server.url, region=server.region)
        login(monkeypatch, *server.add_account())

        with pytest.raises(PermanentError, match=r"write \(s3:PutObject\) s3://owned/a/b.json .*AccessDenied"):
            Bucket("owned", endpoint_url=server.url, region=server.region).put("a/b.json", b"x")
        with pytest.raises(PermanentError, match=r"make \(s3:CreateBucket\) bucket other"):
            Bucket("other", endpoint_url=server.url, region=server.region)

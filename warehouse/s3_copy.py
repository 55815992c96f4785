"""Copies of an S3 archive's objects beside the warehouse: DuckDB reads files, and needs no extension to be downloaded."""

import datetime as dt
import os
import typing as t
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import locations
from botocore.exceptions import BotoCoreError, ClientError
from sqlmesh.utils.errors import SQLMeshError

THREADS = 16


def client() -> t.Any:
    """boto3's client; credentials, region and AWS_ENDPOINT_URL_S3 as boto3 finds them."""
    import boto3
    from botocore.config import Config

    elsewhere = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    # other servers than AWS have seldom a host name for each bucket
    style = {"addressing_style": "path" if elsewhere else "auto"}
    return boto3.client("s3", config=Config(max_pool_connections=THREADS, s3=style))


def place(archive: str) -> tuple[str, str]:
    """Bucket and key prefix (empty, or with its slash) of s3://bucket or s3://bucket/prefix."""
    bucket, _, prefix = archive.removeprefix("s3://").partition("/")
    return bucket, f"{prefix}/" if prefix else ""


@contextmanager
def reached(archive: str, what: str) -> t.Iterator[None]:
    """What S3 has against it is an error that names the archive."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise SQLMeshError(f"The archive {archive} cannot be {what}: {error}: check EGX_WAREHOUSE_ARCHIVE and AWS_*") from error


def delivered(archive: str, first: dt.date, last: dt.date) -> dict[str, int]:
    """Path under the archive and size in bytes of each object that was delivered from one day (UTC) to another, both included.

    Args:
        archive: s3://bucket or s3://bucket/prefix.
    Raises:
        SQLMeshError: the archive cannot be listed.
    """
    bucket, root = place(archive)
    days = [f"{first + dt.timedelta(number)}" for number in range((last - first).days + 1)]
    # A short interval lists its own days, a backfill the archive once.
    prefixes = [f"streaming/date={day}/" for day in days] if len(days) <= 40 else ["streaming/date="]
    found: dict[str, int] = {}
    with reached(archive, "listed"):
        pages = client().get_paginator("list_objects_v2")
        for asked in prefixes:
            for page in pages.paginate(Bucket=bucket, Prefix=root + asked):
                found |= {item["Key"].removeprefix(root): item["Size"] for item in page.get("Contents", ())}
    objects = ((key, size) for key, size in found.items() if key.endswith(".json"))
    return {key: size for key, size in objects if str(first) <= locations.day_of(key) <= str(last)}


def any_under(archive: str, prefix: str) -> bool:
    """Whether the archive has an object whose path begins so. Raises SQLMeshError where that cannot be told."""
    bucket, root = place(archive)
    with reached(archive, "listed"):
        return client().list_objects_v2(Bucket=bucket, Prefix=root + prefix, MaxKeys=1)["KeyCount"] > 0


def fetch(archive: str, folder: Path, first: dt.date, last: dt.date) -> None:
    """Bring what was delivered on some days (UTC) under a folder; an object that is there with its size is not read again.

    Raises:
        SQLMeshError: the archive cannot be read.
    """
    bucket, root = place(archive)
    s3 = client()

    def copy(key: str) -> None:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        body = s3.get_object(Bucket=bucket, Key=root + key)["Body"].read()
        path.with_suffix(".part").write_bytes(body)
        path.with_suffix(".part").rename(path)

    wanted = [
        key
        for key, size in delivered(archive, first, last).items()
        if not (path := folder / key).exists() or path.stat().st_size != size
    ]
    with reached(archive, "read"), ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(copy, wanted))

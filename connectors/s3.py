"""Objects in an S3 bucket through boto3; credentials, profiles and roles as boto3 finds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from connectors.errors import PermanentError, TransientError
from connectors.objects import checked

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_PASSING = {
    "SlowDown",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "ThrottlingException",
    "RequestTimeTooSkewed",
}


class Bucket:
    """An `ObjectStore` under a prefix of a bucket, which is made where it is missing and that is allowed."""

    def __init__(
        self,
        name: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        storage_class: str | None = None,
        encryption: str | None = None,
        kms_key_id: str | None = None,
        parallel: int = 16,
        timeout_seconds: float = 30,
    ) -> None:
        """
        :arg prefix: what every key starts with, `/` at its end included.
        :arg parallel: connections.
        :arg timeout_seconds: of one answer.
        :raises PermanentError: no credentials, or the bucket is missing and may not be made.
        :raises TransientError: S3 does not answer.
        """
        self._name, self._prefix = name, prefix
        self._where = endpoint_url or "AWS S3"
        self._options: dict[str, Any] = {
            key: value
            for key, value in {
                "StorageClass": storage_class,
                "ServerSideEncryption": encryption,
                "SSEKMSKeyId": kms_key_id,
            }.items()
            if value
        }
        try:
            self._client: S3Client = boto3.Session().client(
                "s3",
                endpoint_url=endpoint_url,
                region_name=region,
                config=Config(
                    max_pool_connections=parallel,
                    connect_timeout=5,
                    read_timeout=timeout_seconds,
                    retries={"mode": "standard", "total_max_attempts": 2},
                    s3={"addressing_style": "path" if endpoint_url else "auto"},
                ),
            )
            self._make_if_missing()
        except BotoCoreError as error:
            raise self._error("reach", "", error) from None

    def _make_if_missing(self) -> None:
        """Also the check of the credentials: what it says of them, `head_bucket` would not."""
        try:
            self._client.list_objects_v2(Bucket=self._name, Prefix=self._prefix, MaxKeys=1)
        except ClientError as error:
            if error.response["Error"].get("Code") == "AccessDenied":
                return  # may be a principal that may put but not list: the first put will tell
            if _status(error) != 404:
                raise self._error("reach", "", error) from None
            try:
                region = self._client.meta.region_name
                where: Any = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
                self._client.create_bucket(Bucket=self._name, **where)
            except ClientError as refused:
                if refused.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise self._error("make (s3:CreateBucket)", "", refused) from None

    def put(self, key: str, body: bytes) -> None:
        try:
            self._client.put_object(Bucket=self._name, Key=self._prefix + checked(key), Body=body, **self._options)
        except (BotoCoreError, ClientError) as error:
            raise self._error("write (s3:PutObject)", key, error) from None

    def keys(self, after: str = "") -> Iterator[str]:
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=self._prefix, StartAfter=self._prefix + after
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    yield item["Key"].removeprefix(self._prefix)
        except (BotoCoreError, ClientError) as error:
            raise self._error("list (s3:ListBucket)", "", error) from None

    def folders(self, folder: str = "") -> list[str]:
        prefix = self._prefix + (f"{folder}/" if folder else "")
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=prefix, Delimiter="/")
            return [item["Prefix"].removeprefix(prefix)[:-1] for page in pages for item in page.get("CommonPrefixes", ())]
        except (BotoCoreError, ClientError) as error:
            raise self._error("list (s3:ListBucket)", "", error) from None

    def get(self, key: str) -> bytes:
        try:
            return self._client.get_object(Bucket=self._name, Key=self._prefix + checked(key))["Body"].read()
        except (BotoCoreError, ClientError) as error:
            raise self._error("read (s3:GetObject)", key, error) from None

    def _error(self, action: str, key: str, error: Exception) -> Exception:
        what = f"s3://{self._name}/{self._prefix}{key}" if key else f"bucket {self._name}"
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return PermanentError(
                f"cannot {action} {what} at {self._where}: no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "a profile (AWS_PROFILE) or a role"
            )
        if isinstance(error, SSLError):
            return PermanentError(
                f"cannot {action} {what}: {self._where} has no certificate that is trusted: set AWS_CA_BUNDLE to its authority"
            )
        if isinstance(error, BotoConnectionError | HTTPClientError):
            return TransientError(
                f"cannot {action} {what}: {self._where} does not answer ({error}): check archive.s3.endpoint_url"
            )
        if isinstance(error, ClientError):
            code = error.response["Error"].get("Code", "")
            text = f"cannot {action} {what} at {self._where}: {code} {error.response['Error'].get('Message', '')}".rstrip()
            if _status(error) >= 500 or _status(error) in (408, 429) or code in _PASSING:
                return TransientError(text, _retry_after(error))
            return PermanentError(f"{text}: check the credentials, and that they allow this on the bucket")
        return PermanentError(f"cannot {action} {what} at {self._where}: {error}")


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _retry_after(error: ClientError) -> float | None:
    value = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
    return float(value) if value.isdigit() else None

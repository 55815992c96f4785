"""An S3 server: versitygw, which keeps each object as a file."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import urllib3

from tests.servers.build import ARTEFACTS
from tests.servers.process import Server, ServerError

_http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=1))


class S3(Server):
    """An S3 server with a root account and those of `add_account`. Buckets are folders of `folder`/data."""

    name = "s3"
    secret_names = ("access_key", "secret_key")
    region = "us-east-1"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def environment(self) -> dict[str, str]:
        return {
            "EGX_TEST_S3_ENDPOINT": self.url,
            "AWS_ACCESS_KEY_ID": self.secrets["access_key"],
            "AWS_SECRET_ACCESS_KEY": self.secrets["secret_key"],
            "AWS_DEFAULT_REGION": self.region,
        }

    def add_account(self) -> tuple[str, str]:
        """Makes an account that may make no bucket and use none; returns its access and secret keys."""
        access_key, secret_key = secrets.token_hex(10), secrets.token_urlsafe(24)
        program = str(ARTEFACTS[self.name].get())
        where = [f"--endpoint-url={self.url}", f"--region={self.region}"]
        account = [f"--access={access_key}", f"--secret={secret_key}", "--role=user"]
        root = {
            "ADMIN_ACCESS_KEY_ID": self.secrets["access_key"],
            "ADMIN_SECRET_ACCESS_KEY": self.secrets["secret_key"],
        }
        done = subprocess.run(
            [program, "admin", *where, "create-user", *account],
            env={**os.environ, **root},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"s3 could not make an account: {done.stdout}{done.stderr}")
        return access_key, secret_key

    def _prepare(self) -> None:
        for name in ("data", "attributes", "accounts"):
            (self.folder / name).mkdir()

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        front = [f"--port={self.address}", f"--region={self.region}", f"--iam-dir={self.folder / 'accounts'}"]
        front += ["--quiet", "--keep-alive", "--health=/health"]
        back = [] if _keeps_attributes(self.folder) else [f"--sidecar={self.folder / 'attributes'}"]
        # The credentials are not on the command line, which every user of the machine can read.
        root = {"ROOT_ACCESS_KEY": self.secrets["access_key"], "ROOT_SECRET_KEY": self.secrets["secret_key"]}
        return [str(ARTEFACTS[self.name].get()), *front, "posix", *back, str(self.folder / "data")], root

    def _healthy(self) -> bool:
        try:
            return _http.request("GET", f"{self.url}/health").status == 200
        except urllib3.exceptions.HTTPError:
            return False


def _keeps_attributes(folder: Path) -> bool:
    """Whether the file system has extended attributes, where versitygw keeps ETags and metadata."""
    if not hasattr(os, "setxattr"):
        return False
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.setxattr(file.fileno(), "user.egx", b"1")
        except OSError:
            return False
    return True

"""An S3 server: versitygw, which keeps each object as a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import urllib3

from tests.servers.build import ARTEFACTS
from tests.servers.process import Server

_http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=1))


class S3(Server):
    """An S3 server with one root account. Buckets are the folders below `folder`/data."""

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

    def _prepare(self) -> None:
        (self.folder / "data").mkdir()
        (self.folder / "attributes").mkdir()

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        command = [str(ARTEFACTS[self.name].get()), f"--port={self.address}", f"--region={self.region}"]
        command += ["--quiet", "--keep-alive", "--health=/health", "posix"]
        if not _keeps_attributes(self.folder):
            command.append(f"--sidecar={self.folder / 'attributes'}")
        command.append(str(self.folder / "data"))
        # Not on the command line, which every user of the machine can read.
        return command, {
            "ROOT_ACCESS_KEY": self.secrets["access_key"],
            "ROOT_SECRET_KEY": self.secrets["secret_key"],
        }

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

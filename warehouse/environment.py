"""The environment that the warehouse runs in: config.yaml's archive, under the names that the warehouse takes it by.

`python -m warehouse.environment sqlmesh -p warehouse plan` runs a command in it, as `just plan` does.
"""

from __future__ import annotations

import os
import sys

from dataflows.settings import Settings, SettingsError, load


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with the archive that the stream writes; EGX_WAREHOUSE_ARCHIVE wins where it is set."""
    archive = settings.archive.url.rstrip("/").removesuffix("/streaming")
    if "://" not in archive:
        archive = str(settings.path(archive))
    found = {**os.environ, "EGX_WAREHOUSE_ARCHIVE": os.environ.get("EGX_WAREHOUSE_ARCHIVE") or archive}
    if settings.archive.s3.endpoint_url:
        found["AWS_ENDPOINT_URL_S3"] = settings.archive.s3.endpoint_url
    if settings.archive.s3.region:
        found["AWS_REGION"] = settings.archive.s3.region
    return found


def main() -> None:
    try:
        settings = load()
    except SettingsError as error:
        print(f"egx: {error}", file=sys.stderr)
        sys.exit(2)
    command = sys.argv[1:]
    os.execvpe(command[0], command, environment(settings))  # noqa: S606 - the caller's own command


if __name__ == "__main__":
    main()

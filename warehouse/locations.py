"""Where the archive and the warehouse's files are: read when asked, from the environment or the project's defaults.

Macros and Python models call these when they run. As SQLMesh variables the paths would be part of each model's fingerprint,
and moving the project to another folder would rebuild every table.
"""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def located(variable: str, default: str) -> str:
    """A location from the environment, relative ones under the project's root; s3:// as it stands."""
    value = os.environ.get(variable) or default
    return value.rstrip("/") if "://" in value else str(PROJECT / value)


def archive() -> str:
    """The bars' archive: a folder or s3://bucket/prefix (EGX_WAREHOUSE_ARCHIVE)."""
    return located("EGX_WAREHOUSE_ARCHIVE", "data/archive")


def warehouse() -> str:
    """Folder of the DuckDB file, SQLMesh's state and the published Parquet files (EGX_WAREHOUSE)."""
    return located("EGX_WAREHOUSE", "data/warehouse")


def investing_dates() -> str:
    """Order of day and month in files of investing.com: MDY or DMY (EGX_INVESTING_DATES)."""
    return os.environ.get("EGX_INVESTING_DATES") or "MDY"

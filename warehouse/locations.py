"""Where the archive and the warehouse's files are: read when asked, from the environment or the project's defaults.

Macros and Python models call these when they run. As SQLMesh variables the paths would be part of each model's fingerprint,
and moving the project to another folder would rebuild every table.
"""

import datetime as dt
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


def day_of(path: str) -> str:
    """Delivery date of an object, or of its folder, by its path under the archive: streaming/date=YYYY-MM-DD/..."""
    return path.removeprefix("streaming/date=").split("/")[0]


def days_with_objects(archive: str, first: dt.date = dt.date.min, last: dt.date = dt.date.max) -> list[str]:
    """Delivery dates (UTC) of a local archive that have an object, in order; both ends included."""
    folders = {
        folder.name.removeprefix("date="): folder for folder in Path(archive, "streaming").glob("date=*") if folder.is_dir()
    }
    return [day for day in sorted(folders) if str(first) <= day <= str(last) and has_object(folders[day])]


def has_object(day: Path) -> bool:
    """Whether the folder of a delivery date has one; by os.scandir, which takes a third of Path.glob's time for years of days."""
    with os.scandir(day) as symbols:
        return any(file.name.endswith(".json") for symbol in symbols if symbol.is_dir() for file in os.scandir(symbol.path))


def warehouse() -> str:
    """Folder of the DuckDB file, SQLMesh's state and the published Parquet files (EGX_WAREHOUSE)."""
    return located("EGX_WAREHOUSE", "data/warehouse")


def investing_dates() -> str:
    """Order of day and month in files of investing.com: MDY or DMY (EGX_INVESTING_DATES)."""
    return os.environ.get("EGX_INVESTING_DATES") or "MDY"

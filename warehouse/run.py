"""Bring the warehouse up to date: `python -m warehouse.run [--gateway snowflake] [--late-days 30]`.

Reads the archive that config.yaml names. Applies the project (a first time, or after a change), loads objects that arrived
late, then everything up to now, today's partial bars included. Exits with 1 where a model or a blocking audit failed, with 2
where the settings are wrong.

`sqlmesh run` alone reads the delivery dates since the last run and the one before. An object written later under an older
date (the archive's writer was away for some days), or written again and longer, would be missed; here each object and its
bytes are compared with what bronze holds: a date that has more is loaded again, with all that depends on it, and where one has
less nothing is run. Dates whose load was cut short are loaded again too: late.*.json beside the tables names them meanwhile.
"""

# ruff: noqa: S608 -- SQL of the project's own names and paths; no outsider's text is in it

import argparse
import datetime as dt
import json
import os
import sys
from pathlib import Path

from sqlmesh import Context
from sqlmesh.core.console import configure_console
from sqlmesh.utils import CompletionStatus

from dataflows.settings import SettingsError, load
from warehouse.environment import environment

BRONZE = "bronze.stock_prices_raw"
FOLDER = Path(__file__).resolve().parent


def on_snowflake(context: Context) -> bool:
    return bool(context.config.get_gateway(context.gateway).connection.type_ == "snowflake")


def delivered(context: Context, first: dt.date, last: dt.date) -> dict[str, int]:
    """Path under the archive and bytes of each object of some delivery dates.

    Snowflake's are those that have been loaded into its landing table, and lines in place of bytes.
    """
    import locations

    root = locations.archive()
    if on_snowflake(context):
        lines = "SELECT DISTINCT delivered_on, archive_object, source_line FROM landing.stock_prices_archive"
        loaded = f"SELECT archive_object, COUNT(*) FROM ({lines}) AS l WHERE delivered_on >= '{first}' GROUP BY archive_object"
        return dict(context.engine_adapter.fetchall(loaded))
    if "://" in root:
        import s3_copy

        return s3_copy.delivered(root, first, last)
    days = [f"{first + dt.timedelta(number)}" for number in range((last - first).days + 1)]
    paths = (path for day in days for path in Path(root, "streaming", f"date={day}").glob("*/*.json"))
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}


def held(context: Context, first: dt.date) -> dict[str, int]:
    """Path and bytes, or lines, of each object of the delivery dates from one on that bronze holds, as `delivered` has them."""
    size = "COUNT(*)" if on_snowflake(context) else "MAX(object_size)"
    loaded = f"SELECT archive_object, {size} FROM {BRONZE} WHERE delivered_on >= '{first}' GROUP BY archive_object"
    return dict(context.engine_adapter.fetchall(loaded))


def days_with_more(one: dict[str, int], other: dict[str, int]) -> list[dt.date]:
    """Delivery dates, in order, of which one has objects that the other lacks, or has smaller."""
    import locations

    return sorted({dt.date.fromisoformat(locations.day_of(path)) for path, size in one.items() if size > other.get(path, -1)})


def late_dates(context: Context, today: dt.date, days: int) -> list[dt.date]:
    """Delivery dates of the last `days` days, in order, of which the archive has objects, or more of one, that bronze has not."""
    first = today - dt.timedelta(days)
    return days_with_more(delivered(context, first, today), held(context, first))


def lost(context: Context, today: dt.date, days: int) -> str | None:
    """What is wrong if the archive has less than bronze: nothing at all, or fewer objects or bytes of a date in the last days.

    A run that reads such a date takes the rows that are no longer there out of bronze. Snowflake's landing table loses nothing.
    """
    import locations
    import vanished

    if on_snowflake(context) or not context.engine_adapter.table_exists(BRONZE):
        return None
    root = locations.archive()
    if not any_delivered(root):
        return vanished.everything(context.engine_adapter, root)
    first = today - dt.timedelta(days)
    if not (lacking := days_with_more(held(context, first), delivered(context, first, today))):
        return None
    what = f"The archive {root} has less than bronze of {', '.join(map(str, lacking))}: mount the rest of it"
    return f"{what}; if it was taken out on purpose, `sqlmesh -p warehouse plan --restate-model {BRONZE}` from and to those dates"


def any_delivered(root: str) -> bool:
    """Whether anything was ever delivered to the archive."""
    if "://" in root:
        import s3_copy

        return s3_copy.any_under(root, "streaming/date=")
    return next(Path(root, "streaming").glob("date=*"), None) is not None


def publish_missing(context: Context) -> None:
    """Gold's files without rows where nothing was published yet: Grafana's data source needs all of them."""
    import publishing

    publishing.write_missing(model for model in context.models.values() if model.schema_name.lower() == "gold")


def run(context: Context, now: dt.datetime, late_days: int) -> bool:
    """Plan, late dates, run up to a time (UTC). Returns False where something failed; the console says what."""
    today = now.date()
    if (why := lost(context, today, late_days)) is not None:
        print(why, file=sys.stderr, flush=True)
        return False
    # An unchanged project has passed its unit tests, which take longer than a small run.
    context.plan(auto_apply=True, no_prompts=True, execution_time=now, test_changed_only=True)
    import locations

    # SQLMesh takes what it has loaded of bronze for loaded, though it was stopped before what depends on it.
    begun = Path(locations.warehouse(), f"late.{'snowflake' if on_snowflake(context) else 'duckdb'}.json")
    late = {dt.date.fromisoformat(day) for day in json.loads(begun.read_text())} if begun.exists() else set()
    # Yesterday and today are read again by the run itself.
    late |= {day for day in late_dates(context, today, late_days) if day < today - dt.timedelta(1)}
    if late:
        days = sorted(map(str, late))
        begun.with_suffix(".tmp").write_text(json.dumps(days))
        begun.with_suffix(".tmp").replace(begun)
        print(f"Objects arrived late for {', '.join(days)}: loading again from {days[0]}", flush=True)
        context.plan(
            restate_models=[BRONZE], start=days[0], end=days[-1], execution_time=now, auto_apply=True, no_prompts=True,
            skip_tests=True,
        )  # fmt: skip
        begun.unlink()
    return context.run(ignore_cron=True, execution_time=now) is not CompletionStatus.FAILURE


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--gateway", help="duckdb (the default) or snowflake")
    arguments.add_argument("--late-days", type=int, default=30, help="how far back to look for objects that came late")
    given = arguments.parse_args()
    try:
        os.environ |= environment(load())
    except SettingsError as error:
        print(f"egx: {error}", file=sys.stderr)
        return 2
    configure_console(ignore_warnings=False)
    with_console = Context(paths=str(FOLDER), gateway=given.gateway)
    try:
        publish_missing(with_console)
        return 0 if run(with_console, dt.datetime.now(dt.UTC), given.late_days) else 1
    finally:
        with_console.close()


if __name__ == "__main__":
    sys.exit(main())

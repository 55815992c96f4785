"""Bring the warehouse up to date: `python -m warehouse.run [--gateway snowflake] [--late-days 30]`.

Reads the archive that config.yaml names. Applies the project (a first time, or after a change), loads objects that arrived
late, then everything up to now, today's partial bars included. Exits with 1 where a model or a blocking audit failed, with 2
where the settings are wrong.

`sqlmesh run` alone reads the delivery dates since the last run and the one before. An object written later under an older
date (the archive's writer was away for some days), or written again and longer, would be missed; here each date's objects
and their bytes are counted against what bronze holds: a date that has more is loaded again, with all that depends on it, and
where one has less nothing is run.
"""

# ruff: noqa: S608 -- SQL of the project's own names and paths; no outsider's text is in it

import argparse
import datetime as dt
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


Amount = tuple[int, int]


def delivered(context: Context, first: dt.date, last: dt.date) -> dict[dt.date, Amount]:
    """How many objects the archive has of each delivery date, and bytes.

    Snowflake's is what has been loaded into its landing table, and lines in place of bytes.
    """
    import locations

    root = locations.archive()
    if on_snowflake(context):
        lines = "SELECT DISTINCT delivered_on, archive_object, source_line FROM landing.stock_prices_archive"
        return amounts(context, f"{lines} WHERE delivered_on >= '{first}'", "COUNT(DISTINCT archive_object), COUNT(*)")
    if "://" in root:
        import s3_copy

        return s3_copy.amounts(root, first, last)
    asked = [first + dt.timedelta(number) for number in range((last - first).days + 1)]
    sizes = {day: [path.stat().st_size for path in Path(root, "streaming", f"date={day}").glob("*/*.json")] for day in asked}
    return {day: (len(found), sum(found)) for day, found in sizes.items()}


def held(context: Context, first: dt.date) -> dict[dt.date, Amount]:
    """How many objects bronze holds of each delivery date from one on, and bytes or lines, as `delivered` counts them."""
    objects = f"SELECT delivered_on, archive_object, MAX(object_size) AS bytes, COUNT(*) AS lines FROM {BRONZE}"
    measure = "lines" if on_snowflake(context) else "bytes"
    grouped = f"{objects} WHERE delivered_on >= '{first}' GROUP BY delivered_on, archive_object"
    return amounts(context, grouped, f"COUNT(*), SUM({measure})")


def amounts(context: Context, objects: str, measures: str) -> dict[dt.date, Amount]:
    found = context.engine_adapter.fetchall(f"SELECT delivered_on, {measures} FROM ({objects}) AS o GROUP BY delivered_on")
    return {day: (int(count), int(size)) for day, count, size in found}


def late_dates(context: Context, today: dt.date, days: int) -> list[dt.date]:
    """Delivery dates of the last `days` days, in order, of which the archive has objects, or more of one, that bronze has not."""
    first = today - dt.timedelta(days)
    loaded = held(context, first)
    return sorted(day for day, there in delivered(context, first, today).items() if exceeds(there, loaded.get(day, (0, 0))))


def exceeds(one: Amount, other: Amount) -> bool:
    return one[0] > other[0] or one[1] > other[1]


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
    if not (loaded := held(context, first)):
        return None
    there = delivered(context, first, max(loaded))
    fewer = ", ".join(
        f"{day} ({has[0]} objects of {had[0]}, {has[1]} bytes of {had[1]})"
        for day, had in sorted(loaded.items())
        if exceeds(had, has := there.get(day, (0, 0)))
    )
    if not fewer:
        return None
    what = f"The archive {root} has less than bronze of {fewer}: mount the rest of it"
    return (
        f"{what}; if they were taken out on purpose, `sqlmesh -p warehouse plan --restate-model {BRONZE}` from and to those dates"
    )


def any_delivered(root: str) -> bool:
    """Whether anything was ever delivered to the archive."""
    if "://" in root:
        import s3_copy

        return s3_copy.any_delivered(root)
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
    # Yesterday and today are read again by the run itself.
    late = [day for day in late_dates(context, today, late_days) if day < today - dt.timedelta(1)]
    if late:
        print(f"Objects arrived late for {', '.join(map(str, late))}: loading again from {late[0]}", flush=True)
        context.plan(
            restate_models=[BRONZE], start=str(late[0]), end=str(late[-1]), execution_time=now, auto_apply=True, no_prompts=True,
            skip_tests=True,
        )  # fmt: skip
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

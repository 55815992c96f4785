"""What the warehouse has published: gold as Parquet, and how its schedule does."""

from __future__ import annotations

import datetime as dt
import importlib.util
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from connectors.errors import PermanentError
from dataflows.reports import write_report
from dataflows.settings import ROOT

HEALTHY: Final = dt.timedelta(hours=30)  # a run is due every night


TITLES: Final = {
    "bars": "Bars received",
    "freshness": "Companies up to date",
    "anomaly": "Bars that cannot be",
    "incomplete": "Incomplete bars",
    "missing_field": "Bars without a field",
    "rejected": "Rejected lines",
    "historical_difference": "Stream and history differ",
    "price_jump": "Unexplained price jumps",
    "no_price_step": "Corporate actions without a price step",
}
"""Check -> what people call it."""


class Check(msgspec.Struct):
    """A data-quality check: how many of its rows are well, how many somebody should look at, and those of the newest day."""

    name: str
    ok: int
    warn: int
    warn_newest: int = 0

    @property
    def title(self) -> str:
        return TITLES.get(self.name, self.name)


class Schedule(msgspec.Struct):
    """What the warehouse's schedule did last; times aware, in UTC."""

    next_at: dt.datetime
    ended_at: dt.datetime | None = None
    seconds: float | None = None
    ok: bool | None = None

    def failing(self, now: dt.datetime) -> str | None:
        """Why it is not healthy, None where it is: its last run was well, and the next has taken place or is not long due."""
        if self.ok is False:
            return "the last warehouse run failed: its log says why"
        if now - self.next_at > HEALTHY:
            return f"the warehouse run of {self.next_at:%Y-%m-%d %H:%M} UTC has not taken place: start the schedule again"
        return None


def gold_folder() -> Path:
    """Where the warehouse publishes gold as Parquet: below EGX_WAREHOUSE, as it takes that."""
    return ROOT / (os.environ.get("EGX_WAREHOUSE") or "data/warehouse") / "gold"


def schedule_file() -> Path:
    return gold_folder().parent / "schedule.json"


def read_schedule() -> Schedule | None:
    """The schedule's state, None where it has never run. Raises PermanentError where its file is broken."""
    file = schedule_file()
    try:
        return msgspec.json.decode(file.read_bytes(), type=Schedule)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise PermanentError(f"{file} cannot be read ({error}): start the schedule again, which writes it anew") from None


def write_schedule(state: Schedule) -> None:
    write_report(schedule_file(), state)


def newest_days() -> dict[str, dt.date]:
    """Symbol -> its newest day; empty where nothing was published."""
    return dict(_query("vw_gold_market_snapshot", "SELECT symbol, trade_date FROM gold"))


def quality() -> list[Check]:
    """The data-quality checks, by name; empty where nothing was published."""
    counts = "COUNT(*) FILTER (status = 'ok'), COUNT(*) FILTER (status <> 'ok'), "
    counts += "COUNT(*) FILTER (status <> 'ok' AND trade_date = (SELECT MAX(trade_date) FROM gold))"
    return [Check(*row) for row in _query("vw_gold_data_quality", f"SELECT check_name, {counts} FROM gold GROUP BY 1 ORDER BY 1")]  # noqa: S608


def _query(view: str, query: str) -> list[tuple[Any, ...]]:
    """Raises PermanentError where the file cannot be read."""
    file = gold_folder() / f"{view}.parquet"
    if not file.exists() or importlib.util.find_spec("duckdb") is None:
        return []
    import duckdb

    try:
        rows: list[tuple[Any, ...]] = (
            duckdb.connect().execute(f"WITH gold AS (FROM read_parquet(?)) {query}", [str(file)]).fetchall()
        )
    except duckdb.Error as error:
        raise PermanentError(f"{file} cannot be read ({error}): the next warehouse run writes it anew") from None
    return rows

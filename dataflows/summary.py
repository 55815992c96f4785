"""What the main job has made: the last price, change and volume of each symbol, and the archive's objects.

python -m dataflows.summary
"""

from __future__ import annotations

import datetime as dt
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from dataflows.bar import CAIRO
from dataflows.live import MEASUREMENT
from dataflows.settings import Settings, SettingsError, load
from dataflows.symbols import company

_DAYS = f"""
WITH daily AS (
  SELECT symbol, interval, DATE(datetime) AS day, datetime, close, volume, source
  FROM {MEASUREMENT}
  WHERE close IS NOT NULL AND interval IN ('Daily', '1 Minute', '5 Minute', '30 Minute')
), ranked AS (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY symbol, interval, day ORDER BY datetime DESC) AS newest,
    SUM(volume) OVER (PARTITION BY symbol, interval, day) AS day_volume
  FROM daily
)
SELECT symbol, interval, datetime, close, day_volume, source
FROM ranked WHERE newest = 1 ORDER BY symbol, interval, datetime
"""  # noqa: S608 - names of ours


class Quote(NamedTuple):
    """A symbol's last day in the live store; `change` is a fraction of the close of the day before."""

    symbol: str
    time: dt.datetime
    close: float
    change: float | None
    volume: int | None
    source: str | None


def quotes(path: Path) -> list[Quote]:
    """The last day of each symbol, from its daily bars, else from its shortest intraday bars."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    days: dict[str, dict[str, list[tuple[str, float, int | None, str | None]]]] = {}
    for symbol, interval, *day in connection.execute(_DAYS):
        days.setdefault(symbol, {}).setdefault(interval, []).append(tuple(day))
    connection.close()
    found = []
    for symbol, intervals in days.items():
        of = next(intervals[i] for i in ("Daily", "1 Minute", "5 Minute", "30 Minute") if i in intervals)
        time, close, volume, source = of[-1]
        before = of[-2][1] if len(of) > 1 else None
        change = close / before - 1 if before else None
        found.append(Quote(symbol, dt.datetime.fromisoformat(time), close, change, volume, source))
    return found


def market(found: Iterable[Quote]) -> Table:
    """The quotes as a table for the terminal."""
    found = list(found)
    simulated = any(quote.source == "simulated" for quote in found)
    title = "EGX, simulated session: not real prices" if simulated else "EGX, last bars in the live store"
    table = Table(title=title, title_style="bold yellow" if simulated else "bold", pad_edge=False)
    for header in ("Symbol", "Company", "Day"):
        table.add_column(header)
    for header in ("Last", "", "Change", "Volume"):
        table.add_column(header, justify="right" if header else "left")
    for quote in found:
        its = company(quote.symbol)
        change = quote.change
        colour = "green" if (change or 0) > 0 else "red" if (change or 0) < 0 else "white"
        table.add_row(
            f"[bold]{quote.symbol}[/]",
            its.name,
            f"{quote.time.astimezone(CAIRO):%Y-%m-%d}",
            f"{quote.close:,.2f}" if quote.close >= 2 else f"{quote.close:,.3f}",
            its.currency,
            "" if change is None else f"[{colour}]{change:+.2%}[/]",
            "" if quote.volume is None else f"{quote.volume:,}",
        )
    return table


def archive_tree(root: Path, title: str) -> Tree:
    """The archive's dates, with their symbols and objects."""
    objects = sorted(root.glob("date=*/symbol=*/*.json"))
    size = sum(path.stat().st_size for path in objects)
    tree = Tree(f"[bold]{title}[/]  {len(objects):,} objects, {size / 1e6:,.1f} MB, one record a line")
    for date, number in sorted(Counter(path.parts[-3] for path in objects).items())[-3:]:
        branch = tree.add(f"{date}  {number:,} objects")
        of = [path for path in objects if path.parts[-3] == date]
        for path in of[:3]:
            with path.open("rb") as file:
                lines = sum(1 for _ in file)
            branch.add(f"{path.parts[-2]}/{path.name}  {lines:,} records")
        if len(of) > 3:
            branch.add(f"... {len(of) - 3:,} more")
    return tree


def show(settings: Settings, console: Console) -> None:
    live = settings.path(settings.live.sqlite)
    if settings.live.store != "sqlite":
        console.print(f"The live store is InfluxDB at {settings.influxdb.url}: its dashboards show the market.")
    elif not live.exists():
        raise SettingsError(f"there is no live store at {live} yet: run python -m bytewax.run dataflows.main first")
    else:
        console.print(market(quotes(live)))
    if "://" not in settings.archive.url:
        console.print(archive_tree(settings.path(settings.archive.url), settings.archive.url))
    else:
        console.print(f"The archive is at {settings.archive.url}.")


if __name__ == "__main__":
    try:
        show(load(), Console(width=None if sys.stdout.isatty() else 110))
    except SettingsError as error:
        sys.exit(f"egx: {error}")

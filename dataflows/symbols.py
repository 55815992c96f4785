"""What the warehouse's seeds know of a symbol's life: when it stopped trading, or under which name it goes on."""

from __future__ import annotations

import csv
import datetime as dt
from functools import cache
from typing import Final, NamedTuple

from dataflows.calendar import SEEDS

_FOREVER: Final = dt.date.max


class Ended(NamedTuple):
    """A symbol that trades no more; `on` is the first date without it, as far as it is known."""

    on: dt.date
    hint: str
    new_symbol: str | None = None


@cache
def ended() -> dict[str, Ended]:
    """The symbols that trade no more, from companies.csv and symbol_history.csv."""
    found = {}
    with (SEEDS / "companies.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["status"] == "delisted":
                since = row["status_since"]
                found[row["symbol"]] = Ended(_date(since), f"It was delisted in {since}: take it out of source.symbols")
    with (SEEDS / "symbol_history.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            when = f" since {row['renamed_on']}" if row["renamed_on"] else ""
            hint = f"It trades as {row['new_symbol']}{when}: change source.symbols"
            found[row["old_symbol"]] = Ended(_date(row["renamed_on"]), hint, row["new_symbol"])
    return found


def traded_until(symbol: str) -> dt.date | None:
    """The first date from which on no bar is expected, None while it trades."""
    return ended()[symbol].on if symbol in ended() and ended()[symbol].on != _FOREVER else None


def trades_as(symbol: str) -> str:
    """The name under which it goes on, as gold has it; its own where it was not renamed."""
    return (symbol in ended() and ended()[symbol].new_symbol) or symbol


def _date(text: str) -> dt.date:
    """A date, or the first of a month or year; for an unknown one the end of time."""
    if not text:
        return _FOREVER
    return dt.date.fromisoformat(f"{text}-01-01"[:10] if len(text) == 4 else f"{text}-01"[:10])

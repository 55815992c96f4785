"""What the warehouse's seeds know of a symbol: its company, when it stopped trading, or under which name it goes on."""

from __future__ import annotations

import csv
import datetime as dt
from functools import cache
from typing import Final, NamedTuple

from dataflows.calendar import SEEDS

_FOREVER: Final = dt.date.max


class Company(NamedTuple):
    """A company of the warehouse's seed companies.csv: its names in English and Arabic, its prices' currency, its status."""

    name: str
    name_ar: str
    sector: str
    currency: str
    status: str = "listed"
    status_since: str = ""

    @property
    def listed(self) -> bool:
        return self.status == "listed"


class Ended(NamedTuple):
    """A symbol that trades no more; `on` is the first date without it, as far as it is known."""

    on: dt.date
    hint: str
    new_symbol: str | None = None


@cache
def companies() -> dict[str, Company]:
    """Symbol -> company, in the seed's order."""
    with (SEEDS / "companies.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["symbol"]: Company(
                row["name_en"], row["name_ar"], row["sector"], row["currency"], row["status"], row["status_since"]
            )
            for row in csv.DictReader(file)
        }


def company(symbol: str) -> Company:
    """Its company; where the seed does not have it, one that is called as the symbol and listed, in EGP."""
    return companies().get(symbol) or Company(symbol, "", "", "EGP")


@cache
def ended() -> dict[str, Ended]:
    """The symbols that trade no more, from companies.csv and symbol_history.csv."""
    found = {}
    for symbol, one in companies().items():
        if one.status == "delisted":
            since = one.status_since
            found[symbol] = Ended(_date(since), f"It was delisted in {since}: take it out of source.symbols")
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

"""What dashboards cannot know from bars alone, as points of InfluxDB: the companies' names, and the exchange's calendar.

Measurement `company` (tag symbol): name, name_ar, sector, currency, and expected, whether bars must come: it is in
`source.symbols`, and not delisted. One that the warehouse's seed does not name is called as its symbol. Measurement `market` (tag
exchange): session_open (1 or 0), and, in seconds since 1970, expected_at: the opening of the newest session whose bars must be
there, and opens_at and closes_at: those of the session that is open or comes next.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator

from connectors.influxdb import fields, series
from dataflows.calendar import Calendar, egx, expected_session
from dataflows.symbols import companies, company


def lines(exchange: str, symbols: Collection[str], now: dt.datetime) -> Iterator[bytes]:
    """Lines (times in microseconds) of a moment (aware). A company's point is of the hour: to write it again changes nothing.

    :arg symbols: those of which bars are fetched.
    """
    yield market(egx(), exchange, now)
    hour = int(now.replace(minute=0, second=0, microsecond=0).timestamp() * 1e6)
    for symbol in dict.fromkeys((*companies(), *symbols)):
        its = company(symbol)
        values: dict[str, str | bool] = {
            "name": its.name,
            "name_ar": its.name_ar,
            "sector": its.sector,
            "currency": its.currency,
            "expected": symbol in symbols and its.listed,
        }
        yield b"%b %b %d" % (series("company", {"symbol": symbol}), fields(values), hour)


def market(calendar: Calendar, exchange: str, now: dt.datetime) -> bytes:
    open_now = calendar.open_session(now)
    session = open_now or calendar.next_session(now)
    values = {
        "session_open": int(open_now is not None),
        "expected_at": expected_session(calendar, now).open.timestamp(),
        "opens_at": session.open.timestamp(),
        "closes_at": session.close.timestamp(),
    }
    return b"%b %b %d" % (series("market", {"exchange": exchange}), fields(values), int(now.timestamp() * 1e6))

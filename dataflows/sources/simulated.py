"""A made-up session of the exchange, the same for the same seed: real hours, ticks and price limits, invented prices.

Each bar's `source` is "simulated". First come the daily bars of earlier sessions; then, minute by minute, the 1-minute bars
of the symbols that traded, and every five minutes the daily bar so far. The last one is final.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Final

from connectors.polling import Poll
from dataflows.bar import Bar, Interval
from dataflows.calendar import Calendar, Session, egx
from dataflows.settings import Settings
from dataflows.sources import SourceError

LIMIT: Final = 0.20  # of the previous close; the exchange's rule since 5 September 2021
MINUTE: Final = dt.timedelta(minutes=1)
DAILY_EVERY: Final = 5  # minutes
DAY_VOLATILITY: Final = 0.018  # standard deviation of a day's logarithmic return
DAY_TURNOVER: Final = 60e6  # of a median symbol and day, in its currency
START: Final = {  # invented, of the size of real prices: EGP, EKHO in USD
    "COMI": 84.0, "ETEL": 42.0, "SWDY": 78.0, "PHDC": 7.4, "ORAS": 310.0, "ESRS": 138.0, "HRHO": 24.0, "OCDI": 19.0,
    "SKPC": 19.5, "TMGH": 58.0, "JUFO": 27.0, "EKHO": 0.72, "CLHO": 9.1, "OTMT": 1.2, "BTFH": 3.1, "HELI": 11.0,
}  # fmt: skip

Prices = tuple[float, float, float, float]
"""Open, high, low, close."""


def tick(price: float) -> float:
    """The exchange's price step: 0.01 from 2.00 up, 0.001 below."""
    return 0.01 if price >= 2 else 0.001


def on_tick(price: float) -> float:
    """The nearest price that can be quoted."""
    return max(round(price, 2 if price >= 2 else 3), 0.001)


def within_limit(price: float, previous_close: float) -> float:
    """The price held within 20 % of the previous close, on a tick."""
    low, high = previous_close * (1 - LIMIT), previous_close * (1 + LIMIT)
    low_step, high_step = tick(low), tick(high)
    lowest, highest = math.ceil(low / low_step - 1e-9) * low_step, math.floor(high / high_step + 1e-9) * high_step
    return on_tick(min(max(price, lowest), highest))


@dataclass
class _Symbol:
    """A symbol during a session."""

    name: str
    exchange: str
    random: Random
    previous_close: float
    activity: float = field(init=False)
    price: float = field(init=False)
    day: list[Bar] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.activity = self.random.uniform(0.35, 0.95)  # chance that a minute has a trade
        self.price = self.previous_close

    def bar(self, interval: Interval, start: dt.datetime, prices: Prices, volume: int, final: bool) -> Bar:
        return Bar(self.name, self.exchange, interval, start, *prices, volume, source="simulated", is_final=final)

    def step(self, deviation: float) -> float:
        moved = self.price * math.exp(self.random.gauss(0, deviation))
        self.price = within_limit(on_tick(moved), self.previous_close)
        return self.price

    def trade(self, start: dt.datetime, volume_share: float, deviation: float) -> Bar:
        """One minute's bar; `volume_share` of a day's volume."""
        prices = [self.step(deviation) for _ in range(4)]
        volume = max(1, int(DAY_TURNOVER / self.previous_close * volume_share * self.random.lognormvariate(0, 0.9)))
        minute = self.bar("1 Minute", start, (prices[0], max(prices), min(prices), prices[-1]), volume, final=True)
        self.day.append(minute)
        return minute

    def daily(self, session: Session, final: bool) -> Bar | None:
        """The daily bar so far, None before the first trade."""
        if not self.day:
            return None
        prices = (
            self.day[0].open or 0.0,
            max(bar.high or 0.0 for bar in self.day),
            min(bar.low or math.inf for bar in self.day),
            self.day[-1].close or 0.0,
        )
        return self.bar("Daily", session.open, prices, sum(bar.volume or 0 for bar in self.day), final)


def history(symbol: str, exchange: str, sessions: Sequence[Session], random: Random) -> tuple[list[Bar], float]:
    """Daily bars of earlier sessions, oldest first, and the last close."""
    close = START.get(symbol) or on_tick(random.lognormvariate(3, 1))
    bars = []
    for session in sessions:
        before = close
        opened = within_limit(on_tick(before * math.exp(random.gauss(0, DAY_VOLATILITY / 3))), before)
        close = within_limit(on_tick(opened * math.exp(random.gauss(0.0004, DAY_VOLATILITY))), before)
        high = within_limit(on_tick(max(opened, close) * (1 + abs(random.gauss(0, 0.006)))), before)
        low = within_limit(on_tick(min(opened, close) * (1 - abs(random.gauss(0, 0.006)))), before)
        prices = (opened, max(opened, close, high), min(opened, close, low), close)
        volume = int(DAY_TURNOVER / before * random.lognormvariate(0, 0.6))
        bars.append(Bar(symbol, exchange, "Daily", session.open, *prices, volume, source="simulated", is_final=True))
    return bars, close


def session_bars(session: Session, symbols: Sequence[_Symbol], minutes: int | None) -> Iterator[tuple[dt.datetime, list[Bar]]]:
    """The time (aware) at which bars become known, and the bars: minute by minute, then the final daily bars."""
    trading = [session.open + i * MINUTE for i in range((session.close_continuous - session.open) // MINUTE)]
    after = [session.auction_end + i * MINUTE for i in range((session.close - session.auction_end) // MINUTE)]
    deviation = DAY_VOLATILITY / math.sqrt(4 * max(1, len(trading)))
    for number, start in enumerate((trading + after)[:minutes], 1):
        bars = []
        for symbol in symbols:
            if start < session.close_continuous:
                if symbol.random.random() < symbol.activity:
                    bars.append(symbol.trade(start, 0.85 / len(trading) / symbol.activity, deviation))
            elif start == session.auction_end:  # the closing auction: one price, much volume
                bars.append(symbol.trade(start, 0.12, 0.0))
            elif symbol.random.random() < symbol.activity / 2:  # trading at the close: that price
                bars.append(symbol.trade(start, 0.006, 0.0))
        if number % DAILY_EVERY == 0:
            bars += [bar for symbol in symbols if (bar := symbol.daily(session, final=False))]
        yield start + MINUTE, bars
    if minutes is None or minutes >= len(trading) + len(after):
        yield session.close, [bar for symbol in symbols if (bar := symbol.daily(session, final=True))]


def poll(settings: Settings) -> Poll[Bar]:
    """The source of the settings; deterministic but for its pace."""
    source, options, calendar = settings.source, settings.source.simulated, egx()

    def bars(stop: threading.Event) -> Iterator[list[Bar]]:
        first = _first_session(options.date, calendar)
        past = calendar.sessions_back(first.date - dt.timedelta(days=1))
        sessions = list(islice(past, options.history_sessions))[::-1]
        closes = {}
        for name in source.symbols:
            made, closes[name] = history(name, source.exchange, sessions, Random(f"{options.seed}/{name}"))
            yield made
        session: Session | None = first
        while session is not None and not stop.is_set():
            symbols = [
                _Symbol(name, source.exchange, Random(f"{options.seed}/{name}/{session.date}"), closes[name])
                for name in source.symbols
            ]
            known = session.open
            for at, batch in session_bars(session, symbols, options.minutes):
                if options.speed and stop.wait((at - known).total_seconds() / options.speed):
                    return
                known = at
                yield batch
            closes = {symbol.name: symbol.price for symbol in symbols}
            session = _next_over(session, calendar, source.poll_seconds, stop) if source.follows else None

    return bars


def _first_session(date: dt.date | None, calendar: Calendar) -> Session:
    """The session to play: the one of a date or the last before it, by default the last that is over."""
    now = dt.datetime.now(dt.UTC)
    if date is None:
        return calendar.last_over(now)
    session = next((session for session in calendar.sessions_back(date) if session.open <= now), None)
    if session is None:
        raise SourceError(f"no session is known on or before {date}: set source.simulated.date to a later one")
    return session


def _next_over(session: Session, calendar: Calendar, seconds: float, stop: threading.Event) -> Session | None:
    """The session after one, as soon as it is over; None when asked to stop."""
    while True:
        date, now = session.date, dt.datetime.now(dt.UTC)
        for _ in range(60):
            date += dt.timedelta(days=1)
            following = calendar.session(date)
            if following and following.close <= now:
                return following
        if stop.wait(seconds):
            return None

"""The page itself: `streamlit run page/app.py`, or `just page`. Each block looks again every few seconds by itself."""

from __future__ import annotations

import datetime as dt
import sqlite3
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from functools import wraps
from html import escape
from math import inf
from pathlib import Path
from typing import Any

import streamlit as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Streamlit runs this file as a script

from dataflows import gold
from dataflows.bar import CAIRO
from dataflows.calendar import egx
from dataflows.reports import is_alive, newest_by_leg, read_reports, span
from dataflows.settings import Settings, SettingsError, load
from page import stores
from page.chart import DOWN, UP, candles, panes
from page.stores import Quote

EVERY = 2.0  # seconds from one look to the next
PIPELINE_EVERY = 5.0
PLAYS_SECONDS = 20.0  # since the last simulated minute: no longer playing
DOUBTS = """
SELECT trade_date, symbol, check_name, detail, expected, received FROM view WHERE status <> 'ok'
ORDER BY trade_date DESC NULLS LAST, symbol, check_name LIMIT 50
"""
EMPTY = "The live store has no daily or intraday bar with a price yet: this page fills by itself."
NOT_YET = "There is no live store yet: run `just demo`, or start the legs, and this page fills by itself."
CSS = """
<style>
:root { --dim: light-dark(#586573, #98a4b0); --line: light-dark(#c5d0da, #2a3642); --box: light-dark(#eef2f6, #182029); }
.block-container { padding: 1rem 1.2rem 2rem; max-width: 1500px; }
header[data-testid="stHeader"] { background: transparent; height: 0; }
h1, h2, h3 { letter-spacing: -.01em; }
.egx-head { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: baseline; }
.egx-head b { font-size: 1.35rem; }
.egx-tag { padding: .1rem .55rem; border-radius: 1rem; font-size: .8rem; white-space: nowrap;
  background: light-dark(#dfe7ee, #23303c); }
.egx-tag.warn { background: light-dark(#ffe9b0, #5b4300); color: light-dark(#6b4e00, #ffd873); }
.egx-tag.good { background: light-dark(#cdeee7, #10443b); color: light-dark(#0b5d50, #7fe3cf); }
.egx-figures { display: flex; flex-wrap: wrap; gap: .6rem; margin: .2rem 0; }
.egx-figure { background: var(--box); border-radius: .5rem; padding: .45rem .8rem; flex: 1 1 6.5rem; }
.egx-figure small { display: block; color: var(--dim); }
.egx-figure span { font-size: 1.15rem; font-variant-numeric: tabular-nums; }
table.egx { width: 100%; border-collapse: collapse; font-size: .88rem; }
table.egx th, table.egx td { padding: .25rem .5rem; border-bottom: 1px solid light-dark(#e3e9ef, #1b2530); }
table.egx th { text-align: left; color: var(--dim); font-weight: 500; border-bottom-color: var(--line); }
table.egx .n { text-align: right; font-variant-numeric: tabular-nums; }
table.egx td.n, table.egx .day { white-space: nowrap; }
table.egx .ar { direction: rtl; text-align: right; }
.up { color: light-dark(#0a7566, #3fc9b4); } .down { color: light-dark(#c22f2f, #ff7b78); } .dim { color: var(--dim); }
.egx-breadth { display: flex; height: .7rem; border-radius: .35rem; overflow: hidden; margin: .35rem 0;
  background: var(--line); }
@media (max-width: 1100px) { table.egx .wider { display: none; } }
@media (max-width: 760px) { .egx-figure { flex-basis: 28%; } }
@media (max-width: 640px) {
  *:has(> .st-key-head) { order: -2; }
  *:has(> .st-key-market) { order: -1; }
  .block-container { padding: .6rem .5rem 2rem; }
  table.egx .wide { display: none; }
  table.egx th, table.egx td { padding: .25rem .3rem; }
  .egx-figures { gap: .4rem; }
  .egx-figure { padding: .35rem .5rem; }
  .egx-figure small { font-size: .75rem; white-space: nowrap; }
}
</style>
"""


@st.cache_resource
def settings() -> Settings:
    return load()


def quotes() -> list[Quote]:
    """The market now; empty while there is no store. Raises sqlite3.Error where there is one that cannot be read."""
    chosen = settings()
    path = chosen.path(chosen.live.sqlite)
    return stores.quotes(path, chosen.source.exchange) if path.exists() else []


def reads_live(block: Callable[[], None]) -> Callable[[], None]:
    """Makes a block say so where it cannot read the live store."""

    @wraps(block)
    def guarded() -> None:
        try:
            block()
        except sqlite3.Error as error:
            chosen = settings()
            st.error(f"The live store {chosen.path(chosen.live.sqlite)} cannot be read: {error}")

    return guarded


def tone(change: float | None) -> str:
    return "dim" if not change else "up" if change > 0 else "down"


def price(value: float) -> str:
    return f"{value:,.2f}" if value >= 2 else f"{value:,.3f}"


def percent(change: float | None) -> str:
    return "–" if change is None else f"{change:+.2%}"


def count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def millions(value: float | None) -> str:
    return "–" if value is None else f"{value / 1e6:,.1f} M"


def figure(label: str, value: str, style: str = "") -> str:
    return f'<div class="egx-figure"><small>{escape(label)}</small><span class="{style}">{escape(value)}</span></div>'


def spark(closes: tuple[float, ...]) -> str:
    """A small line of the last closes."""
    if len(closes) < 2:
        return ""
    low, high = min(closes), max(closes)
    points = " ".join(
        f"{96 * i / (len(closes) - 1):.1f},{20 - 18 * (close - low) / ((high - low) or 1):.1f}" for i, close in enumerate(closes)
    )
    colour = UP if closes[-1] >= closes[0] else DOWN
    line = f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="96" height="22">{line}</svg>'
    return f'<img alt="" width="96" height="22" src="data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}">'


def html_table(header: list[tuple[str, str]], rows: list[list[str]]) -> str:
    """A table: its columns as (title, CSS class), its cells as HTML."""
    head = "".join(f'<th class="{style}">{title}</th>' for title, style in header)
    body = "".join(
        "<tr>" + "".join(f'<td class="{style}">{cell}</td>' for cell, (_, style) in zip(row, header, strict=True)) + "</tr>"
        for row in rows
    )
    head = f"<thead><tr>{head}</tr></thead>" if any(title for title, _ in header) else ""
    return f'<table class="egx">{head}<tbody>{body}</tbody></table>'


def tag(text: str, style: str = "") -> str:
    return f'<span class="egx-tag {style}">{escape(text)}</span>'


def simulated(market: list[Quote], now: dt.datetime) -> str:
    """Which simulated session plays, and where it is: at night too, so that moving prices puzzle nobody."""
    chosen = settings()
    play = stores.play(chosen.path(chosen.live.sqlite), chosen.source.exchange)
    if play is None:
        return ""
    at = play.minute.astimezone(CAIRO)
    since = now - dt.timedelta(seconds=PLAYS_SECONDS)
    if play.ingested_at > since:
        return tag(f"playing the session of {at:%a %d %b}, now {at:%H:%M} in it", "good")
    if any(quote.ingested_at and quote.ingested_at > since for quote in market):  # minutes come again only where they changed
        return tag(f"playing the session of {at:%a %d %b} again", "good")
    return tag(f"played the session of {at:%a %d %b} up to {at:%H:%M}")


@st.fragment(run_every=EVERY)
@reads_live
def head() -> None:
    market, now = quotes(), dt.datetime.now(dt.UTC)
    if any(quote.source == "simulated" for quote in market):
        tags = [tag("simulated: not real prices", "warn"), simulated(market, now)]
    else:
        tags = [tag("session open", "good") if egx().open_session(now) else tag("session closed")]
    tags.append(tag(f"Cairo {now.astimezone(CAIRO):%a %d %b, %H:%M:%S}"))
    st.html(f'<div class="egx-head"><b>EGX market</b>{"".join(tags)}</div>')
    if not market:
        chosen = settings()
        st.info(EMPTY if chosen.path(chosen.live.sqlite).exists() else NOT_YET)
        return
    rising, falling = (sum((quote.change or 0) * sign > 0 for quote in market) for sign in (1, -1))
    value = sum(quote.value or 0 for quote in market if quote.company.currency == "EGP")
    newest = max((quote.ingested_at for quote in market if quote.ingested_at), default=None)
    figures = [
        figure("Companies", str(len(market))),
        figure("Rising", str(rising), "up"),
        figure("Falling", str(falling), "down"),
        figure("Unchanged", str(len(market) - rising - falling)),
        figure("Value traded, about", f"EGP {value / 1e6:,.0f} M"),
        figure("Newest bar", f"{span((now - newest).total_seconds())} ago" if newest else "–"),
    ]
    share = [100 * part / len(market) for part in (rising, falling)]
    breadth = f'<i style="width:{share[0]:.1f}%;background:{UP}"></i><i style="width:{100 - sum(share):.1f}%"></i>'
    breadth += f'<i style="width:{share[1]:.1f}%;background:{DOWN}"></i>'
    label = f"{rising} rising, {falling} falling"
    st.html(f'<div class="egx-figures">{"".join(figures)}</div>')
    st.html(f'<div class="egx-breadth" role="img" aria-label="{label}">{breadth}</div>')


@st.fragment(run_every=EVERY)
@reads_live
def chart() -> None:
    market = quotes()
    if not market:
        return
    chosen = settings()
    path, exchange = chosen.path(chosen.live.sqlite), chosen.source.exchange
    left, right = st.columns([2, 1])
    symbols = [quote.symbol for quote in market]
    first = next((symbol for symbol in chosen.source.symbols if symbol in symbols), symbols[0])
    names = {
        quote.symbol: " · ".join(filter(None, (quote.symbol, quote.company.name, quote.company.name_ar))) for quote in market
    }
    symbol = left.selectbox("Symbol", symbols, symbols.index(first), key="symbol", format_func=lambda symbol: names[symbol])
    interval = right.selectbox("Interval", stores.intervals(path, exchange, symbol), key="interval")
    frame = stores.bars(path, exchange, symbol, interval, 500)
    if frame.empty:
        st.info(f"{symbol} has no {interval} bar with prices yet.")
        return
    intraday = interval not in ("Daily", "Weekly", "Monthly")
    candles(**panes(frame, symbol, intraday), key=f"chart-{symbol}-{interval}")


@st.fragment(run_every=EVERY)
@reads_live
def leaders() -> None:
    market = quotes()
    if not market:
        return
    moved = [quote for quote in market if quote.change is not None]
    by_change = sorted(moved, key=lambda quote: quote.change or 0, reverse=True)
    columns = [("", ""), ("", "n"), ("", "n")]

    def rows(some: list[Quote]) -> list[list[str]]:
        return [
            [
                f"<b>{escape(quote.symbol)}</b>",
                price(quote.price),
                f'<span class="{tone(quote.change)}">{percent(quote.change)}</span>',
            ]
            for quote in some
        ]

    st.markdown("##### Gainers")
    st.html(html_table(columns, rows([quote for quote in by_change if (quote.change or 0) > 0][:5])))
    st.markdown("##### Losers")
    st.html(html_table(columns, rows([quote for quote in by_change[::-1] if (quote.change or 0) < 0][:5])))
    st.markdown("##### Leaders by value")
    # Not by volume, where shares of a few piastres would always lead; in one currency, for there is no rate here.
    in_egp = [quote for quote in market if quote.company.currency == "EGP"]
    by_value = sorted(in_egp, key=lambda quote: quote.value or 0, reverse=True)[:5]
    cells = [[f"<b>{escape(quote.symbol)}</b>", millions(quote.value), count(quote.volume)] for quote in by_value]
    st.html(html_table([("", ""), ("EGP", "n"), ("shares", "n")], cells))


@st.fragment(run_every=EVERY)
@reads_live
def table() -> None:
    market = quotes()
    if not market:
        return
    st.markdown("##### Market")
    left, right = st.columns(2)
    order = left.selectbox("Sort by", list(ORDERS), key="order")
    wanted = right.text_input("Find", key="find", placeholder="Symbol or company, in English or Arabic").casefold()
    names = {quote.symbol: f"{quote.symbol} {quote.company.name} {quote.company.name_ar}".casefold() for quote in market}
    rows = [row(quote) for quote in sorted(market, key=ORDERS[order]) if wanted in names[quote.symbol]]
    st.html(html_table(COLUMNS, rows))


COLUMNS = [("Symbol", ""), ("Company", "wide"), ("الشركة", "ar"), ("Open", "n wider"), ("High", "n wider"), ("Low", "n wider")]
COLUMNS += [("Last", "n"), ("Change", "n"), ("Volume", "n wide"), ("Value, about", "n wide"), ("30 sessions", "wide")]
COLUMNS += [("Day", "n wider")]
ORDERS: dict[str, Callable[[Quote], Any]] = {
    "Symbol": lambda quote: quote.symbol,
    "Change, highest first": lambda quote: -(quote.change if quote.change is not None else -inf),
    "Change, lowest first": lambda quote: quote.change if quote.change is not None else inf,
    "Volume": lambda quote: -(quote.volume or 0),
    # Each currency by itself: there is no rate here.
    "Value": lambda quote: (quote.company.currency, -(quote.value or 0)),
}


def row(quote: Quote) -> list[str]:
    """A company's cells of the market's table."""
    foreign = "" if quote.company.currency == "EGP" else f'<span class="dim">{escape(quote.company.currency)}</span> '
    return [
        f"<b>{escape(quote.symbol)}</b>",
        escape(quote.company.name),
        f'<span dir="rtl" lang="ar">{escape(quote.company.name_ar)}</span>',
        *("–" if value is None else price(value) for value in (quote.open, quote.high, quote.low)),
        foreign + price(quote.price),
        f'<span class="{tone(quote.change)}">{percent(quote.change)}</span>',
        count(quote.volume),
        foreign + millions(quote.value),
        spark(quote.closes),
        f'<span class="dim">{quote.time.astimezone(CAIRO):%Y-%m-%d}</span>',
    ]


@st.fragment(run_every=PIPELINE_EVERY)
def pipeline() -> None:
    st.markdown("##### Pipeline")
    chosen, now = settings(), time.time()
    legs = newest_by_leg(read_reports(chosen.path(chosen.metrics.folder)))
    rows = []
    for leg, (report, figures) in legs.items():
        alive = is_alive(report, now)
        state = "runs" if alive else "failed" if report.error else "ended" if report.ended else "down"
        style = {"runs": "up", "ended": "dim"}.get(state, "down")
        latency = figures.latency_p99_seconds
        rows.append(
            [
                f"<b>{escape(leg)}</b>",
                f'<span class="{style}">{state}</span>',
                f"{figures.written:,}",
                f"{figures.per_second:,.0f}/s" if alive else "",
                f"{figures.rejected:,}",
                "" if figures.lag is None else f"{figures.lag:,}",
                "" if latency is None else span(latency),
            ]
        )
    header = [("Leg", ""), ("", ""), ("Written", "n"), ("Rate", "n wide"), ("Rejected", "n"), ("Lag", "n"), ("p99", "n")]
    st.html(html_table(header, rows) if rows else '<span class="dim">No leg has reported yet.</span>')
    for error in dict.fromkeys(report.error for report, _ in legs.values() if report.error):
        st.error(error)
    st.caption("p99: from a bar's ingestion until it can be queried. The archive is written once an epoch, 10 s.")


@st.fragment(run_every=PIPELINE_EVERY)
def quality() -> None:
    st.markdown("##### Data quality")
    checks = sorted(gold.quality(), key=lambda check: -check.warn)
    if not checks:
        st.html('<span class="dim">The warehouse has not run yet: <code>just warehouse-run</code> fills this.</span>')
        return
    rows = [
        [escape(check.title), f"{check.ok:,}", f'<span class="{"down" if check.warn else "dim"}">{check.warn:,}</span>']
        for check in checks
    ]
    st.html(html_table([("Check", ""), ("ok", "n"), ("to look at", "n")], rows))
    doubts = stores.gold(gold.gold_folder(), "vw_gold_data_quality", DOUBTS)
    if doubts is not None and len(doubts):
        with st.expander("What to look at, the newest 50"):
            cells = [
                [
                    "–" if row.trade_date is None or row.trade_date != row.trade_date else f"{row.trade_date:%Y-%m-%d}",
                    f"<b>{escape(row.symbol or '')}</b>",
                    escape(gold.TITLES.get(row.check_name, row.check_name)),
                    escape(": ".join(filter(None, (row.detail, f"{row.received} of {row.expected}" if row.expected else None)))),
                ]
                for row in doubts.itertuples()
            ]
            st.html(html_table([("Day", "day"), ("Symbol", ""), ("Check", ""), ("", "")], cells))
    breadth = stores.gold(
        gold.gold_folder(),
        "vw_gold_market_breadth",
        "SELECT trade_date, advancers, decliners, new_highs_52w, new_lows_52w, above_ma_30d_pct"
        " FROM view ORDER BY trade_date DESC LIMIT 5",
    )
    if breadth is not None and len(breadth):
        st.markdown("##### Breadth of the last sessions")
        rows = [
            [
                f"{row.trade_date:%Y-%m-%d}",
                f'<span class="up">{row.advancers}</span>',
                f'<span class="down">{row.decliners}</span>',
                f"{row.new_highs_52w} / {row.new_lows_52w}",
                "–" if row.above_ma_30d_pct != row.above_ma_30d_pct else f"{row.above_ma_30d_pct:.0f} %",
            ]
            for row in breadth.itertuples()
        ]
        header = [
            ("Day", "day"),
            ("rising", "n"),
            ("falling", "n"),
            ("52-week highs / lows", "n"),
            ("above 30-day mean", "n wide"),
        ]
        st.html(html_table(header, rows))


def main() -> None:
    st.set_page_config("EGX market", page_icon=":chart_with_upwards_trend:", layout="wide")
    st.html(CSS)
    try:
        settings()
    except SettingsError as error:
        st.error(str(error))
        return
    if settings().live.store != "sqlite":
        st.warning("The live store is InfluxDB: Grafana shows it (docs/operations.md). This page reads the embedded stores.")
    with st.container(key="head"):
        head()
    left, right = st.columns([3, 1])
    with left:
        chart()
    with right:
        leaders()
    with st.container(key="market"):
        table()
    left, right = st.columns(2)
    with left:
        pipeline()
    with right:
        quality()


main()

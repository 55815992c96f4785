"""A symbol's bars in Lightweight Charts: candles with averages, volume, and the relative strength index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import litecharts
import pandas as pd
import streamlit.components.v1 as components

from dataflows.bar import CAIRO
from warehouse.indicators import momentum

UP: Final = "#26a69a"
DOWN: Final = "#ef5350"
AVERAGES: Final = {20: "#f0b90b", 50: "#3fa7d6"}  # bars, colour
RSI_COLOUR: Final = "#b388ff"
RSI_LEVELS: Final = (30, 70)  # sold out, bought out: Wilder, New Concepts in Technical Trading Systems, 1978
SHOWN: Final = 120  # bars at first
FRAME: Final = "#80909f66"  # on light and on dark
GRID: Final = "#80909f29"
_LAYOUT: Final = {
    "layout": {"attributionLogo": True, "panes": {"separatorColor": FRAME}},
    "grid": {"vertLines": {"color": GRID}, "horzLines": {"color": GRID}},
    "rightPriceScale": {"borderColor": FRAME},
    "handleScroll": {"vertTouchDrag": False},  # a finger's way down a phone is the page's
}

candles = components.declare_component("candles", path=Path(__file__).parent / "candles")
# Not drawn: candles/index.html takes Lightweight Charts itself from this address.
components.declare_component("library", path=Path(litecharts.__file__).parent / "js")


def panes(bars: pd.DataFrame, label: str, intraday: bool) -> dict[str, Any]:
    """What candles/candles.js draws.

    :arg bars: time (aware), open, high, low, close, volume, oldest first.
    :arg intraday: times on the axis rather than dates, those of Cairo.
    """
    # Lightweight Charts has no time zones: what it takes for UTC is Cairo's wall clock.
    local = bars["time"].dt.tz_convert(CAIRO)
    times = [int(t.tz_localize(None).timestamp()) if intraday else f"{t:%Y-%m-%d}" for t in local]
    rising = bars["close"] >= bars["open"]
    points = [
        {"time": time, "open": row.open, "high": row.high, "low": row.low, "close": row.close}
        for time, row in zip(times, bars.itertuples(), strict=True)
    ]
    volume = [
        {"time": time, "value": float(value), "color": f"{UP}88" if up else f"{DOWN}88"}
        for time, value, up in zip(times, bars["volume"], rising, strict=True)
        if pd.notna(value)
    ]
    digits = 3 if bars["close"].min() < 2 else 2
    price = {"type": "price", "precision": digits, "minMove": 10**-digits}
    colours = {"upColor": UP, "downColor": DOWN, "wickUpColor": UP, "wickDownColor": DOWN, "borderVisible": False}
    averages = [
        line(f"Mean {length}", times, bars["close"].rolling(length).mean(), colour, priceFormat=price)
        for length, colour in AVERAGES.items()
    ]
    rsi = line("RSI 14", times, momentum(bars.assign(symbol="", trade_date=range(len(bars))))["rsi_14"], RSI_COLOUR)
    rsi["levels"] = [
        {"price": level, "color": "#59636e", "lineWidth": 1, "lineStyle": 2, "axisLabelVisible": False} for level in RSI_LEVELS
    ]
    return {
        "options": _LAYOUT | {"timeScale": {"borderColor": FRAME, "timeVisible": intraday, "secondsVisible": False}},
        "shown": SHOWN,
        "panes": [
            {"height": 400, "series": [series("Candlestick", label, points, {**colours, "priceFormat": price}), *averages]},
            {"height": 90, "series": [series("Histogram", "Volume", volume, {"priceFormat": {"type": "volume"}})]},
            {"height": 110, "series": [rsi]},
        ],
    }


def series(kind: str, name: str, data: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "name": name, "data": data, "options": options, "levels": []}


def line(name: str, times: list[Any], values: pd.Series, colour: str, **options: Any) -> dict[str, Any]:
    """A line of the values that there are; to four digits, so that an old one does not change with each new bar."""
    data = [{"time": time, "value": round(float(value), 4)} for time, value in zip(times, values, strict=True) if pd.notna(value)]
    plain = {"color": colour, "lineWidth": 1, "priceLineVisible": False, "lastValueVisible": False}
    return series("Line", name, data, plain | options)

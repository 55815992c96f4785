"""A symbol's bars as panes of Lightweight Charts: candles with averages, volume, and the relative strength index."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from dataflows.bar import CAIRO
from warehouse.indicators import momentum

UP: Final = "#26a69a"
DOWN: Final = "#ef5350"
AVERAGES: Final = {20: "#f0b90b", 50: "#3fa7d6"}  # bars, colour
_LAYOUT: Final = {
    "layout": {
        "background": {"type": "solid", "color": "#0f1419"},
        "textColor": "#aab4be",
        "attributionLogo": True,
        "panes": {"separatorColor": "#2a3642"},
    },
    "grid": {"vertLines": {"color": "#1d2731"}, "horzLines": {"color": "#1d2731"}},
    "rightPriceScale": {"borderColor": "#2a3642"},
    "timeScale": {"borderColor": "#2a3642", "timeVisible": True, "secondsVisible": False},
}


def panes(bars: pd.DataFrame, label: str, intraday: bool) -> list[dict[str, Any]]:
    """The panes of a chart.

    :arg bars: time (aware), open, high, low, close, volume, oldest first.
    :arg intraday: times on the axis rather than dates, those of Cairo.
    """
    # Lightweight Charts has no time zones: what it takes for UTC is Cairo's wall clock.
    local = bars["time"].dt.tz_convert(CAIRO)
    times = [int(t.tz_localize(None).timestamp()) if intraday else f"{t:%Y-%m-%d}" for t in local]
    rising = bars["close"] >= bars["open"]
    candles = [
        {"time": time, "open": row.open, "high": row.high, "low": row.low, "close": row.close}
        for time, row in zip(times, bars.itertuples(), strict=True)
    ]
    volume = [
        {"time": time, "value": float(value), "color": f"{UP}88" if up else f"{DOWN}88"}
        for time, value, up in zip(times, bars["volume"], rising, strict=True)
        if pd.notna(value)
    ]
    smallest = 0.001 if bars["close"].min() < 2 else 0.01
    price = {"type": "price", "precision": 3 if smallest == 0.001 else 2, "minMove": smallest}
    colours = {"upColor": UP, "downColor": DOWN, "wickUpColor": UP, "wickDownColor": DOWN, "borderVisible": False}
    averages = [
        line(times, bars["close"].rolling(length).mean(), colour, f"mean {length}", price) for length, colour in AVERAGES.items()
    ]
    rsi = momentum(bars.assign(symbol="", trade_date=range(len(bars))))["rsi_14"]
    return [
        {
            "chart": _LAYOUT,
            "series": [{"type": "Candlestick", "data": candles, "options": {**colours, "priceFormat": price}}, *averages],
            "height": 400,
            "title": label,
        },
        {
            "chart": _LAYOUT,
            "series": [{"type": "Histogram", "data": volume, "options": {"priceFormat": {"type": "volume"}}}],
            "height": 90,
            "title": "Volume",
        },
        {"chart": _LAYOUT, "series": [line(times, rsi, "#b388ff", "")], "height": 110, "title": "RSI 14"},
    ]


def line(times: list[Any], values: pd.Series, colour: str, title: str, price: dict[str, Any] | None = None) -> dict[str, Any]:
    """A line of the values that there are."""
    data = [{"time": time, "value": float(value)} for time, value in zip(times, values, strict=True) if pd.notna(value)]
    options = {"color": colour, "lineWidth": 1, "priceLineVisible": False, "lastValueVisible": False, "title": title}
    return {"type": "Line", "data": data, "options": {**options, **({"priceFormat": price} if price else {})}}

"""What the chart is sent."""

from __future__ import annotations

import pandas as pd
import pytest

from page.chart import panes


def bars(count: int) -> pd.DataFrame:
    """Daily bars from Sunday 7 June 2026, each of which begins at 10:00 in Cairo."""
    closes = [10 + number % 7 / 10 for number in range(count)]
    times = pd.date_range("2026-06-07 07:00", periods=count, freq="D", tz="UTC")
    return pd.DataFrame({"time": times, "open": 10.0, "high": 11.0, "low": 9.0, "close": closes, "volume": 100})


@pytest.mark.parametrize(("intraday", "first"), [(False, "2026-06-07"), (True, 1780826400)])
def test_only_intraday_bars_have_a_time_of_day(intraday: bool, first: object) -> None:
    made = panes(bars(60), "COMI", intraday)
    assert made["options"]["timeScale"]["timeVisible"] is intraday
    assert made["panes"][0]["series"][0]["data"][0]["time"] == first


def test_the_strength_index_has_its_levels_and_no_series_a_label_over_the_candles() -> None:
    made = panes(bars(60), "COMI", False)
    (rsi,) = made["panes"][2]["series"]
    assert [level["price"] for level in rsi["levels"]] == [30, 70]
    every = [series for pane in made["panes"] for series in pane["series"]]
    assert [series["name"] for series in every] == ["COMI", "Mean 20", "Mean 50", "Volume", "RSI 14"]
    assert not any("title" in series["options"] for series in every)


def test_a_new_bar_changes_no_older_point_of_a_line() -> None:
    before, after = (panes(bars(count), "COMI", False)["panes"] for count in (80, 81))
    for old, new in zip((s for p in before for s in p["series"]), (s for p in after for s in p["series"]), strict=True):
        assert new["data"][:-1] == old["data"]

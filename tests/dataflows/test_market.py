"""What Grafana is told of companies and the calendar."""

from __future__ import annotations

import datetime as dt

from dataflows import market


def test_a_symbol_that_the_seed_does_not_name_is_awaited_under_its_symbol() -> None:
    lines = list(market.lines("EGX", ["COMI", "NEWS"], dt.datetime(2025, 12, 7, 9, 30, tzinfo=dt.UTC)))
    (calendar,) = [line for line in lines if line.startswith(b"market,")]
    assert b"session_open=1i" in calendar
    companies = {
        line.split(b" ")[0].removeprefix(b"company,symbol=").decode(): line.decode() for line in lines if line != calendar
    }
    assert 'name="NEWS",name_ar="",sector="",currency="EGP",expected=true' in companies["NEWS"]
    assert 'name="Commercial International Bank (Egypt)"' in companies["COMI"]
    assert "expected=true" in companies["COMI"]
    assert "expected=false" in companies["ETEL"]


def test_a_delisted_symbol_is_not_awaited_though_it_is_polled() -> None:
    (line,) = [
        line
        for line in market.lines("EGX", ["ESRS"], dt.datetime(2025, 12, 7, 9, 30, tzinfo=dt.UTC))
        if line.startswith(b"company,symbol=ESRS ")
    ]
    assert line.split(b" ")[-2].endswith(b"expected=false")

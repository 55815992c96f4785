"""Bars and messages for tests, made up by hypothesis or by hand."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from hypothesis import strategies as st

from dataflows.bar import AHEAD, EARLIEST, INTERVALS, MAX_VOLUME, Bar, encode

NOW = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)

NAMES = st.text("ABCXYZ019._", min_size=1, max_size=20)
PRICES = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False) | st.sampled_from([0.001, 83.1, 1e300])
INSTANTS = st.datetimes(EARLIEST.replace(tzinfo=None), (NOW + AHEAD).replace(tzinfo=None), timezones=st.just(dt.UTC))
# Without lone surrogates, which UTF-8 has not.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def bars(**fixed: Any) -> st.SearchStrategy[Bar]:
    """Any bar that the contract allows."""
    return st.builds(
        Bar,
        **{
            "symbol": NAMES,
            "exchange": NAMES,
            "interval": st.sampled_from(INTERVALS),
            "datetime": INSTANTS,
            **dict.fromkeys(("open", "high", "low", "close"), st.none() | PRICES),
            "volume": st.none() | st.integers(0, MAX_VOLUME),
            "ingestion_timestamp": st.none() | INSTANTS,
            "source": st.none() | TEXTS,
            "is_final": st.none() | st.booleans(),
            **fixed,
        },
    )


def bar(**values: Any) -> Bar:
    """A bar of COMI; the values replace its own."""
    return Bar(
        **{
            "symbol": "COMI",
            "exchange": "EGX",
            "interval": "Daily",
            "datetime": dt.datetime(2025, 12, 7, 8, tzinfo=dt.UTC),
            "open": 83.1,
            "high": 84.0,
            "low": 82.75,
            "close": 83.9,
            "volume": 1_250_000,
            "ingestion_timestamp": dt.datetime(2025, 12, 7, 12, 30, 52, 123456, tzinfo=dt.UTC),
            "source": "egxpy",
            "is_final": False,
            **values,
        }
    )


def fields(**values: Any) -> dict[str, Any]:
    """The fields of that bar's message; the values replace its own, `...` removes one."""
    return {key: value for key, value in {**json.loads(encode(bar())), **values}.items() if value is not ...}


def message(**values: Any) -> bytes:
    """That bar's message, written as another producer might."""
    return json.dumps(fields(**values)).encode()

"""A place to install egxpy's double where the real one is missing."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator

import pytest

# egxpy is on no package registry, so an environment may lack it. Then this stands in for the one function that the platform
# calls, and like egxpy it asks the real tradingview-datafeed: a TvDatafeedLive a call, its get_hist with timeout=-1, all under
# 20 tries. With `just egxpy` the tests run on the real one.
DOUBLE = """
from retry import retry
from tvDatafeed import Interval, TvDatafeedLive

KNOWN = {"Daily": Interval.in_daily, "Weekly": Interval.in_weekly, "Monthly": Interval.in_monthly}


@retry(Exception, tries=20, delay=0.5, backoff=0)
def get_OHLCV_data(symbol, exchange, interval, n_bars):
    live = TvDatafeedLive()
    return live.get_hist(symbol=symbol, exchange=exchange, interval=KNOWN[interval], n_bars=n_bars, timeout=-1)
"""


@pytest.fixture(scope="session")
def egxpy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`real` or `double`; either can be imported here and in child processes. Skips without tradingview-datafeed."""
    if importlib.util.find_spec("tvDatafeed") is None:
        pytest.skip("tradingview-datafeed is not installed")
    if importlib.util.find_spec("egxpy") is not None and os.environ.get("EGX_TEST_EGXPY") != "double":
        yield "real"
        return
    folder = tmp_path_factory.mktemp("double")
    (folder / "egxpy").mkdir()
    (folder / "egxpy" / "__init__.py").touch()
    (folder / "egxpy" / "download.py").write_text(DOUBLE)
    before = os.environ.get("PYTHONPATH")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), before]))
    yield "double"
    sys.path.remove(str(folder))
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before

"""A pytest plugin: tests marked `browser` need Debian's chromium and chromium-driver.

Where these are missing such tests are left out and the summary says so in one line; with CI set they are errors instead.
"""

from __future__ import annotations

import shutil

import pytest

from tests.ci import in_ci

_left_out = pytest.StashKey[int]()
_MISSING = "needs a browser, not there: install chromium and chromium-driver (Debian's packages)"


def _there() -> bool:
    return shutil.which("chromium") is not None and shutil.which("chromedriver") is not None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: needs chromium and chromium-driver")
    config.stash[_left_out] = 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _there() or in_ci():
        return
    left_out = [item for item in items if item.get_closest_marker("browser")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    config.stash[_left_out] = len(left_out)
    if hasattr(config, "workeroutput"):  # a worker of pytest-xdist: its controller prints the summary
        config.workeroutput["browser_left_out"] = len(left_out)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and not _there():
        pytest.fail(_MISSING, pytrace=False)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object | None) -> None:
    config: pytest.Config = node.config  # type: ignore[attr-defined]  # of pytest-xdist, which has no types
    config.stash[_left_out] = max(config.stash[_left_out], getattr(node, "workeroutput", {}).get("browser_left_out", 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := config.stash[_left_out]:
        terminalreporter.write_line(f"Left out {count} tests in a browser: install chromium and chromium-driver.", yellow=True)

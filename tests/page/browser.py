"""A headless Chromium, and the page as a process of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from tests.dataflows.jobs import ROOT, Folder, wait_for

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
)


@contextmanager
def browser(profile: Path, width: int = 1400, height: int = 1000) -> Iterator[webdriver.Chrome]:
    """A Chromium with a profile of its own, in an empty folder. It wishes pages to be dark. :arg width: of its window, pixels."""
    assert CHROMIUM is not None
    assert DRIVER is not None
    options = Options()
    options.binary_location = CHROMIUM
    for flag in (*_FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    try:
        resize(driver, width, height)
        prefers_dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", prefers_dark)
        yield driver
    finally:
        driver.quit()


def resize(driver: webdriver.Chrome, width: int, height: int) -> None:
    """Makes the screen so many pixels large. Headless, a window is never narrower than 500: a phone's has to be told apart."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def unroll(driver: webdriver.Chrome, width: int) -> None:
    """Makes the screen as high as the page is long: the page scrolls inside of an element, which a picture would cut off."""
    resize(driver, width, driver.execute_script("return document.querySelector('[data-testid=stMain]').scrollHeight"))


@contextmanager
def page(folder: Folder, **variables: str) -> Iterator[str]:
    """The page over a folder's stores; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder.path / "page.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "page/app.py", f"--server.port={port}"],
            cwd=ROOT,
            env=folder.environment(**variables),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=2))

    def healthy() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return http.request("GET", f"{address}/_stcore/health").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    try:
        wait_for(healthy, "the page")
        yield address
    finally:
        process.terminate()
        process.wait(30)

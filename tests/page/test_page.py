"""The page in a headless Chromium, over stores that the main job fills."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest
import urllib3
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from connectors.sqlite import open_table
from dataflows.bar import CAIRO
from dataflows.calendar import egx
from dataflows.live import TABLE
from dataflows.reports import Figures, Report, write_report
from tests.dataflows.jobs import ROOT, Folder, wait_for
from tests.page.browser import browser, page, resize

pytestmark = pytest.mark.browser
SYMBOLS = ["COMI", "ETEL", "EKHO"]
SESSION: dict[str, Any] = {"symbols": SYMBOLS, "simulated": {"speed": 0, "history_sessions": 70, "minutes": 60}}


def rows(driver: Chrome) -> dict[str, list[str]]:
    """The cells of the market's table, by symbol, as they are seen."""
    script = """return [...document.querySelectorAll('table.egx')]
        .filter(table => table.querySelector('[lang=ar]'))
        .flatMap(table => [...table.tBodies[0].rows].map(row =>
            [...row.cells].filter(cell => cell.offsetParent).map(cell => cell.innerText.trim())))"""
    return {cells[0]: cells for cells in driver.execute_script(script)}


def chart_is_drawn(driver: Chrome) -> bool:
    """Whether the candles' frame has canvases that are not of one colour."""
    for frame in driver.find_elements(By.TAG_NAME, "iframe"):
        driver.switch_to.frame(frame)
        drawn = driver.execute_script(
            """return [...document.querySelectorAll('canvas')].some(canvas => {
                const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
                const colours = new Set();
                for (let i = 0; i < pixels.length; i += 16) colours.add(pixels[i] + ',' + pixels[i + 1] + ',' + pixels[i + 2]);
                return colours.has('38,166,154') && colours.has('239,83,80');
            })"""
        )
        driver.switch_to.default_content()
        if drawn:
            return True
    return False


@contextmanager
def in_chart(driver: Chrome) -> Iterator[None]:
    """Scripts are of the chart's frame, where `chart` and `lines` are those of candles.js."""
    driver.switch_to.frame(driver.find_element(By.CSS_SELECTOR, "iframe[title='page.chart.candles']"))
    try:
        yield
    finally:
        driver.switch_to.default_content()


def chart_says(driver: Chrome, expression: str) -> Any:
    with in_chart(driver):
        return driver.execute_script(f"return {expression}")


def wider_than(driver: Chrome, width: int) -> int:
    """How many tables end to the right of so many pixels."""
    right = f"t => t.getBoundingClientRect().right > {width + 1}"
    count: int = driver.execute_script(f"return [...document.querySelectorAll('table.egx')].filter({right}).length")
    return count


def wait_for_tables_within(driver: Chrome, width: int) -> None:
    resize(driver, width, 1000)
    wait_for(lambda: wider_than(driver, width) == 0, f"every table within {width} pixels")


def console_errors(driver: Chrome) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


class Shown:
    """The page over a filled store."""

    def __init__(self, folder: Folder, address: str) -> None:
        self.folder, self.address = folder, address

    def publish(self, *bars: str) -> None:
        """Daily bars of today, in the live store when this returns. :arg bars: symbol,open,high,low,close,volume."""
        day = dt.datetime.now(CAIRO).replace(hour=10, minute=0, second=0, microsecond=0).isoformat()
        rows = [",".join((symbol, "Daily", day, *values)) for symbol, *values in (bar.split(",") for bar in bars)]
        header = "symbol,interval,datetime,open,high,low,close,volume"
        (self.folder.path / "bars.csv").write_text("\n".join((header, *rows)) + "\n")
        self.folder.configure(source={"kind": "replay", "replay": {"path": "bars.csv"}})
        assert self.folder.run("main").process.returncode == 0


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = Folder(tmp_path_factory.mktemp("page"), source=SESSION)
    job = folder.run("main")
    assert job.process.returncode == 0, job.output
    with page(folder) as address:
        yield Shown(folder, address)


@pytest.fixture
def driver(shown: Shown, tmp_path: Path) -> Iterator[Chrome]:
    with browser(tmp_path / "profile") as driver:
        driver.get(shown.address)
        wait_for(lambda: set(rows(driver)) == set(SYMBOLS), "the market's table")
        yield driver


def test_it_shows_the_market_and_follows_a_new_bar_without_an_error(shown: Shown, driver: Chrome) -> None:
    text = driver.find_element(By.TAG_NAME, "body").text
    assert "simulated: not real prices" in text
    for title in ("Gainers", "Losers", "Leaders by value", "Market", "Pipeline", "Data quality"):
        assert title in text, title
    wait_for(lambda: chart_is_drawn(driver), "candles, rising and falling")

    names = driver.find_elements(By.CSS_SELECTOR, "table.egx span[lang=ar]")
    assert {name.text for name in names} >= {"البنك التجاري الدولي (مصر)", "الشركة المصرية للاتصالات"}
    assert {name.value_of_css_property("direction") for name in names} == {"rtl"}

    before = rows(driver)["COMI"]
    shown.publish("COMI,100,130,99,123.45,987654")
    wait_for(lambda: "123.45" in rows(driver).get("COMI", []), f"the new price after {before}")
    assert "987,654" in rows(driver)["COMI"]
    wait_for(lambda: chart_is_drawn(driver), "candles after the update")
    assert console_errors(driver) == []


def body(driver: Chrome) -> str:
    return driver.find_element(By.TAG_NAME, "body").text


def test_at_any_hour_it_says_which_simulated_session_was_played(driver: Chrome) -> None:
    session = egx().last_over(dt.datetime.now(dt.UTC))
    last = (session.open + dt.timedelta(minutes=59)).astimezone(CAIRO)
    wait_for(lambda: f"session of {last:%a %d %b}" in body(driver), "the session's day")
    wait_for(lambda: f"played the session of {last:%a %d %b} up to {last:%H:%M}" in body(driver), "the end of the play")
    assert "session closed" not in body(driver)
    assert "session open" not in body(driver)


def test_the_market_can_be_sorted_and_searched(driver: Chrome) -> None:
    order = ".st-key-order [role=combobox], .st-key-order input"
    wait_for(lambda: bool(driver.find_elements(By.CSS_SELECTOR, order)), "the choice of an order")
    driver.find_element(By.CSS_SELECTOR, order).click()
    option = "//li[.='Value'] | //*[@role='option'][.='Value']"
    wait_for(lambda: bool(driver.find_elements(By.XPATH, option)), "the orders")
    driver.find_element(By.XPATH, option).click()

    def in_order() -> bool:
        cells = list(rows(driver).values())
        values = [float(cell[9].split()[-2].replace(",", "")) for cell in cells]
        return cells[-1][0] == "EKHO" and "USD" in cells[-1][9] and values[0] >= values[1] > 0

    wait_for(in_order, "the highest value in EGP first, USD apart")
    find = driver.find_element(By.CSS_SELECTOR, ".st-key-find input")
    find.send_keys("المصرية للاتصالات", Keys.ENTER)
    wait_for(lambda: set(rows(driver)) == {"ETEL"}, "the company that has it in its Arabic name")


def test_the_leaders_are_by_value_in_one_currency(driver: Chrome) -> None:
    script = "return [...document.querySelectorAll('table.egx')].map(table => table.innerText).find(t => t.includes('shares'))"
    wait_for(lambda: "COMI" in (driver.execute_script(script) or ""), "the leaders")
    assert "EKHO" not in driver.execute_script(script)


def test_a_leg_is_shown_once_and_an_error_only_until_it_runs_again(shown: Shown, driver: Chrome) -> None:
    old = Report(("live",), 1, 0.0, 1.0, 5.0, "", True, "the store was away", {"live": Figures()})
    write_report(shown.folder.path / "data/status/old.json", old)
    wait_for(lambda: "Pipeline" in body(driver), "the pipeline")
    driver.refresh()
    wait_for(lambda: "The archive is written once an epoch" in body(driver), "the pipeline")
    script = "return [...document.querySelectorAll('table.egx tr td:first-child')].filter(td => td.innerText === 'live').length"
    wait_for(lambda: driver.execute_script(script) == 1, "one row of the leg")
    wait_for(lambda: "the store was away" not in body(driver), "no error of an older report")
    new = Report(("live",), 1, 0.0, time.time(), 5.0, "", True, "the store is away", {"live": Figures()})
    write_report(shown.folder.path / "data/status/old.json", new)
    wait_for(lambda: "the store is away" in body(driver), "the error of the newest report")


NEWEST = "lines[0].series.data().at(-1).close"
VIEW = "chart.timeScale().getVisibleLogicalRange()"


def test_a_chart_that_was_moved_and_zoomed_keeps_its_view_when_bars_arrive(shown: Shown, driver: Chrome) -> None:
    wait_for(lambda: chart_is_drawn(driver), "the chart")
    at_first = chart_says(driver, VIEW)
    with in_chart(driver):
        canvas = driver.find_element(By.CSS_SELECTOR, "canvas")
        drag = ActionChains(driver, duration=20).move_to_element(canvas).click_and_hold()
        for _ in range(10):
            drag.move_by_offset(25, 0)
        drag.release().perform()
        driver.execute_script("const {from, to} = " + VIEW + "; chart.timeScale().setVisibleLogicalRange({from: from + 5, to})")
    wait_for(lambda: chart_says(driver, VIEW)["to"] < at_first["to"] - 3, "the chart to move")
    moved = chart_says(driver, VIEW)
    for price in ("124.5", "125.5"):
        shown.publish(f"COMI,100,130,99,{price},987654")
        wait_for(lambda price=price: chart_says(driver, NEWEST) == float(price), f"the chart to show {price}")  # type: ignore[misc]
    assert chart_says(driver, VIEW) == pytest.approx(moved)
    assert console_errors(driver) == []


def test_the_chart_says_the_bar_under_the_crosshair_and_else_the_newest(shown: Shown, driver: Chrome) -> None:
    shown.publish("COMI,100,130,99,126.5,987654")
    wait_for(lambda: chart_is_drawn(driver), "the chart")
    legend = "document.getElementById('legend').innerText"
    wait_for(lambda: "O 100.00 H 130.00 L 99.00 C 126.50" in chart_says(driver, legend), "the newest bar")
    for name in ("Volume", "Mean 20", "Mean 50", "RSI 14"):
        assert name in chart_says(driver, legend)
    with in_chart(driver):
        ActionChains(driver).move_to_element(driver.find_element(By.CSS_SELECTOR, "canvas")).perform()
    wait_for(lambda: "C 126.50" not in chart_says(driver, legend), "an older bar's prices")
    assert "O " in chart_says(driver, legend)


def test_the_list_of_symbols_has_the_companies_names_in_both_languages(driver: Chrome) -> None:
    wait_for(lambda: chart_is_drawn(driver), "the chart")
    chosen = driver.find_element(By.CSS_SELECTOR, "[data-testid=stSelectbox]")
    text = chosen.text + " ".join(i.get_attribute("value") or "" for i in chosen.find_elements(By.TAG_NAME, "input"))
    assert "COMI · Commercial International Bank (Egypt) · البنك التجاري الدولي (مصر)" in text


def contrast(one: list[int], other: list[int]) -> float:
    """Of two colours: WCAG 2.2, contrast ratio and relative luminance."""

    def luminance(colour: list[int]) -> float:
        parts = [part / 255 for part in colour]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_it_is_light_or_dark_as_the_browser_wishes_and_can_be_read(driver: Chrome) -> None:
    def colour(css: str, name: str) -> list[int]:
        return [
            int(part) for part in re.findall(r"\d+", driver.find_element(By.CSS_SELECTOR, css).value_of_css_property(name))[:3]
        ]

    themes = tomllib.loads((ROOT / ".streamlit/config.toml").read_text())["theme"]
    for scheme in ("light", "dark"):
        prefers = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", prefers)
        driver.refresh()
        wait_for(lambda: "The archive is written once an epoch" in body(driver), "the last block")
        wait_for(lambda: chart_is_drawn(driver), "the chart")
        background = list(bytes.fromhex(themes[scheme]["backgroundColor"][1:]))
        assert colour(".stApp", "background-color") == background
        with in_chart(driver):
            assert colour("body", "background-color") == background
            assert contrast(colour("body", "color"), background) > 4.5
        for css in ("table.egx .up, table.egx .down", "table.egx .dim", "table.egx th", "table.egx td"):
            assert contrast(colour(css, "color"), background) > 4.5, (scheme, css)
        for css in (".egx-tag.warn", ".egx-tag:last-child"):
            assert contrast(colour(css, "color"), colour(css, "background-color")) > 4.5, (scheme, css)
        assert contrast(colour(".egx-figure small", "color"), colour(".egx-figure", "background-color")) > 4.5


def test_on_a_phone_nothing_is_cut_off_and_the_arabic_names_stay(shown: Shown, tmp_path: Path) -> None:
    with browser(tmp_path / "profile", width=390, height=844) as driver:
        driver.get(shown.address)
        wait_for(lambda: set(rows(driver)) == set(SYMBOLS), "the market's table")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
        assert wider_than(driver, 390) == 0
        market, chart = (driver.find_element(By.CSS_SELECTOR, css).rect["y"] for css in (".st-key-market", ".st-key-symbol"))
        assert driver.find_element(By.CSS_SELECTOR, ".egx-head").rect["y"] < market < chart
        assert [len(cells) for cells in rows(driver).values()] == [4, 4, 4], "symbol, Arabic name, price, change"
        assert "البنك التجاري الدولي (مصر)" in rows(driver)["COMI"]
        assert console_errors(driver) == []


def test_without_a_store_it_says_what_to_do_and_fills_by_itself(tmp_path: Path) -> None:
    folder = Folder(tmp_path, source={**SESSION, "symbols": ["COMI"]})
    gold = tmp_path / "warehouse" / "gold"
    gold.mkdir(parents=True)
    doubt = "'bars' AS check_name, 'warn' AS status, 'COMI' AS symbol, DATE '2026-10-08' AS trade_date"
    rest = "1 AS expected, 0 AS received, 'Daily' AS detail"
    duckdb.connect().execute(f"COPY (SELECT {doubt}, {rest}) TO '{gold}/vw_gold_data_quality.parquet'")
    columns = ("advancers", "decliners", "new_highs_52w", "new_lows_52w", "above_ma_30d_pct")
    breadth = "DATE '2026-10-08' AS trade_date, " + ", ".join(f"{number} AS {name}" for number, name in enumerate(columns))
    duckdb.connect().execute(f"COPY (SELECT {breadth}) TO '{gold}/vw_gold_market_breadth.parquet'")
    with page(folder, EGX_WAREHOUSE=str(gold.parent)) as address, browser(tmp_path / "profile") as driver:
        driver.get(address)
        wait_for(lambda: bool(driver.find_elements(By.TAG_NAME, "summary")), "what to look at, folded")
        driver.find_element(By.TAG_NAME, "summary").click()
        wait_for(lambda: re.search(r"2026-10-08\s+COMI\s+Bars received\s+Daily: 0 of 1", body(driver)) is not None, "the row")
        wait_for(lambda: "There is no live store yet" in driver.find_element(By.TAG_NAME, "body").text, "the hint")
        live = tmp_path / "data" / "live.sqlite"
        live.parent.mkdir(exist_ok=True)
        live.write_text("no database")
        wait_for(lambda: f"The live store {live} cannot be read: file is not a database" in body(driver), "the error")
        wait_for(lambda: "There is no live store yet" not in body(driver), "no more hint, in any part of the page")
        live.unlink()
        open_table(live, TABLE).close()
        wait_for(lambda: "The live store has no daily or intraday bar with a price yet" in body(driver), "an empty store's hint")
        wait_for(lambda: "cannot be read" not in body(driver), "no more error")
        assert folder.run("main").process.returncode == 0
        wait_for(lambda: "COMI" in rows(driver), "the market, without a reload")
        wait_for(lambda: "There is no live store yet" not in driver.find_element(By.TAG_NAME, "body").text, "no more hint")
        wait_for(lambda: "Breadth of the last sessions" in body(driver), "the breadth")
        for width in (820, 390):
            wait_for_tables_within(driver, width)
        assert console_errors(driver) == []


def test_where_its_port_is_taken_the_page_prints_the_address_that_it_has_instead(tmp_path: Path) -> None:
    folder = Folder(tmp_path, source=SESSION)
    just = shutil.which("just") or str(ROOT / ".cache/ci/bin/just")
    log = tmp_path / "page.log"
    with socket.socket() as taken, log.open("wb") as output:
        with suppress(OSError):  # by another process: just as well
            taken.bind(("127.0.0.1", 8501))
            taken.listen()
        process = subprocess.Popen(
            [just, "page"], cwd=ROOT, env=folder.environment(), stdout=output, stderr=output, start_new_session=True
        )
        try:
            wait_for(lambda: "URL: http" in log.read_text(), "the address")
            (address,) = re.findall(r"URL: (http://127\.0\.0\.1:\d+)", log.read_text())
            assert not address.endswith(":8501")
            answer = urllib3.request("GET", f"{address}/_stcore/health", retries=20)
            assert answer.status == 200
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def test_what_the_page_and_the_programs_say_to_run_is_there() -> None:
    recipes = set(re.findall(r"(?m)^([a-z-]+)(?: [^:\n]*)?:", (ROOT / "justfile").read_text()))
    for folder in ("page", "dataflows", "connectors", "warehouse", "deploy"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            named = set(re.findall(r"(?:`|<code>)just ([a-z-]+)", path.read_text()))
            assert named <= recipes, path

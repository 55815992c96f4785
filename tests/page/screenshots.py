"""Makes the pictures of docs/images: `just screenshots`. A simulated session plays while they are taken."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from dataflows.calendar import egx
from tests.dataflows.jobs import ROOT, Folder, wait_for
from tests.page.browser import browser, page, unroll
from tests.page.test_page import body, chart_is_drawn, rows

IMAGES = ROOT / "docs" / "images"
SIZES = {"page": (1400, None), "page-phone": (390, 844)}
"""Picture -> width and height, in pixels; None is the whole page."""


def warehouse(folder: Folder, **variables: str) -> None:
    """Loads the folder's archive into a warehouse beside it."""
    subprocess.run([sys.executable, "-m", "warehouse.run"], cwd=ROOT, env=folder.environment(**variables), check=True)


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        # The session before, and then the last one, slowly enough to play on while the pictures are taken.
        last = egx().last_over(dt.datetime.now(dt.UTC))
        before = next(egx().sessions_back(last.date - dt.timedelta(days=1)))
        folder = Folder(Path(name), source={"simulated": {"speed": 0, "date": str(before.date)}})
        assert folder.run("main").process.returncode == 0
        places = {"EGX_WAREHOUSE_ARCHIVE": f"{name}/data/archive", "EGX_WAREHOUSE": f"{name}/data/warehouse"}
        warehouse(folder, **places)
        folder.configure(source={"simulated": {"speed": 200}})
        seen = {"EGX_WAREHOUSE": places["EGX_WAREHOUSE"]}
        with folder.start("main"), page(folder, **seen) as address:
            for picture, (width, height) in SIZES.items():
                with browser(Path(name) / picture, width, height or 1000) as driver:
                    driver.get(address)
                    wait_for(lambda driver=driver: len(rows(driver)) == 16, "the market")
                    wait_for(lambda driver=driver: re.search("now 1[1-4]:", body(driver)), "a session well under way", 180)
                    wait_for(lambda driver=driver: chart_is_drawn(driver), "the chart")
                    wait_for(
                        lambda driver=driver: "Breadth of the last sessions" in body(driver),
                        "the warehouse's blocks",
                    )
                    if height is None:
                        unroll(driver, width)
                    driver.save_screenshot(str(IMAGES / f"{picture}.png"))
                    print(IMAGES / f"{picture}.png")


if __name__ == "__main__":
    main()

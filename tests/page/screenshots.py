"""Makes the pictures of docs/images: `just screenshots`. A simulated session plays while they are taken."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from selenium.webdriver.common.by import By

from tests.dataflows.jobs import ROOT, Folder, wait_for
from tests.page.browser import browser, page
from tests.page.test_page import chart_is_drawn, rows

IMAGES = ROOT / "docs" / "images"
SIZES = {"page": (1400, 2020), "page-phone": (390, 844)}


def warehouse(folder: Folder, **variables: str) -> None:
    """Loads the folder's archive into a warehouse beside it."""
    subprocess.run([sys.executable, "-m", "warehouse.run"], cwd=ROOT, env=folder.environment(**variables), check=True)


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        # Well under way, and slowly enough to play on while the pictures are taken: what was published before is not again.
        folder = Folder(Path(name), source={"simulated": {"speed": 0, "minutes": 150}})
        assert folder.run("main").process.returncode == 0
        places = {"EGX_WAREHOUSE_ARCHIVE": f"{name}/data/archive", "EGX_WAREHOUSE": f"{name}/data/warehouse"}
        warehouse(folder, **places)
        folder.configure(source={"simulated": {"speed": 200}})
        seen = {"EGX_WAREHOUSE": places["EGX_WAREHOUSE"]}
        with folder.start("main") as job, page(folder, **seen) as address:
            job.wait_for(lambda: job.counts.get("published", 0) > 100, "the session to go on", 180)
            for picture, (width, height) in SIZES.items():
                with browser(Path(name) / picture, width, height) as driver:
                    driver.get(address)
                    wait_for(lambda driver=driver: len(rows(driver)) == 16, "the market")
                    wait_for(lambda driver=driver: chart_is_drawn(driver), "the chart")
                    wait_for(
                        lambda driver=driver: "Breadth of the last sessions" in driver.find_element(By.TAG_NAME, "body").text,
                        "the warehouse's blocks",
                    )
                    driver.save_screenshot(str(IMAGES / f"{picture}.png"))
                    print(IMAGES / f"{picture}.png")


if __name__ == "__main__":
    main()

"""Make docs/report.png, the README's picture of a report.

    python -m scripts.docs.report_picture RUN_FOLDER

RUN_FOLDER is a run whose first source is scikit-learn's `china.jpg` (see readme_picture.py for it and its credits). Needs
the commands chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

TARGET = Path(__file__).resolve().parents[2] / "docs" / "report.png"
SIZE = 1120, 760  # pixels


def chromium() -> Any:
    """A headless Chromium, to be quit."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or sys.exit("error: chromium is not installed")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER")
    folder = parser.parse_args().folder
    driver = chromium()
    try:
        page = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", page)
        driver.get((folder.resolve() / "report.html").as_uri())
        driver.find_element("css selector", ".card").click()
        time.sleep(2)
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    finally:
        driver.quit()
    picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()

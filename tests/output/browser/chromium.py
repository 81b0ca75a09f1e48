"""A headless Chromium for the tests of the report."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


class Browser:
    """The one Chromium of the session, with what the tests ask of it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> Browser:
        """Open a page from disk, with nothing decided or chosen before."""
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.driver.get(page.as_uri())
        self.js("try { localStorage.clear() } catch {}")
        self.drain()
        return self.reload()

    def reload(self) -> Browser:
        """Until the page is a new one whose script has run: `refresh` alone can return while it is still being read."""
        time.sleep(0.2)  # Chromium passes on what a page stores in its own time: the next page could find it missing
        self.js("window.old = true")
        self.driver.refresh()
        self.wait("return !window.old && document.readyState === 'complete'")
        return self

    def cdp(self, command: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def keys(self, *keys: str) -> None:
        """Type to whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0]).textContent", selector))

    def wait(self, script: str) -> Any:
        """Until a script returns something true: that."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 20).until(lambda _: self.js(script))

    def shown(self) -> None:
        """Until the dialog's pictures are there."""
        self.wait(
            "return dialog.open && [...document.querySelectorAll('#stage img')].every((i) => i.hidden || i.complete)"
        )

    def pixels(self, element: Any, path: Path) -> np.ndarray:
        """(H, W, 3) of what an element looks like."""
        path.write_bytes(element.screenshot_as_png)
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).astype(int)

    def drain(self) -> tuple[list[str], list[str]]:
        """(errors of the console, URLs asked for) since the last call."""
        errors = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return errors, asked


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Skips where there is no browser; with CI set it fails."""
    binary, driver_path = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if binary is None or driver_path is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("Chromium and chromedriver are not installed (on Debian, as root: make browser)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """Each test ends without an error in the console and without a request to anywhere but the disk."""
    chromium.drain()
    yield chromium
    errors, asked = chromium.drain()
    assert not errors
    assert [url for url in asked if not url.startswith(("file:///", "data:", "blob:"))] == []

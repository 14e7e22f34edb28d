"""A headless Chromium that reports what it would have fetched."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


class Browser:
    """One page at a time, from a file."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False, fresh: bool = True) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(path.as_uri())
        if fresh:
            self.run("try { localStorage.clear(); } catch { }")
            self.driver.get_log("performance")
            self.driver.get(path.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def click(self, selector: str) -> None:
        """A click as the page sees it, wherever it has scrolled to."""
        self.run("arguments[0].click()", self.find(selector))

    def press(self, selector: str, *keys: str) -> None:
        """Keys for an element that the keyboard reached."""
        element = self.find(selector)
        self.run("arguments[0].focus()", element)
        element.send_keys(*keys)

    def choose(self, selector: str, value: str) -> None:
        self.run(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))",
            self.find(selector),
            value,
        )

    def move(self, selector: str, value: float) -> None:
        """A range input to a value, as a drag would."""
        self.run(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
            self.find(selector),
            value,
        )

    def text(self, selector: str) -> str:
        return self.run("return arguments[0].textContent", self.find(selector))

    def errors(self) -> list[str]:
        """What the console holds, besides the advice that these tests bring about by reading canvases."""
        found = [entry["message"] for entry in self.driver.get_log("browser")]
        return [message for message in found if "willReadFrequently" not in message]

    def requests(self) -> list[str]:
        """Addresses that the page asked for since the last question, besides itself and what is written in it."""
        found = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [m["params"]["request"]["url"] for m in found if m["method"] == "Network.requestWillBeSent"]
        urls += self.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
        page = self.driver.current_url
        return [url for url in urls if url != page and not url.startswith(("data:", "blob:"))]

    def saved(self, name: str) -> bytes:
        """A file that the page offered, once it is complete."""
        from selenium.webdriver.support.ui import WebDriverWait

        path = self.downloads / name
        WebDriverWait(self.driver, 20, poll_frequency=0.05).until(lambda _: path.is_file() and path.stat().st_size > 0)
        content = path.read_bytes()
        path.unlink()
        return content


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium; without one these tests are skipped, unless SCOREPLUG_BROWSER=1 demands them."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        chromium = None
    if chromium is None or chromedriver is None:
        if os.environ.get("SCOREPLUG_BROWSER") == "1":
            pytest.fail("SCOREPLUG_BROWSER=1 needs chromium, chromedriver and selenium")
        pytest.skip("needs chromium, chromedriver and selenium")
    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    yield Browser(driver, downloads)
    driver.quit()

"""A headless Chromium that has a page before a test looks at it."""

from __future__ import annotations

import shutil
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from fedsite.tests import machine

PATIENCE_SECONDS = 60
THERE = "return document.readyState === 'complete' && Boolean(document.body?.childNodes.length)"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--window-size=1280,1000",
)


class Browser(Chrome):
    """On a slow machine ChromeDriver's `get` may return while the document is still the empty one before it."""

    def get(self, url: str) -> None:
        super().get(url)
        self._wait()

    def refresh(self) -> None:
        super().refresh()
        self._wait()

    def _wait(self) -> None:
        WebDriverWait(self, PATIENCE_SECONDS, poll_frequency=0.05).until(lambda _: self.execute_script(THERE))


def chromium(profile: Path) -> Browser:
    """With a fresh profile; `get_log("browser")` tells of refused scripts and styles."""
    options = ChromeOptions()
    options.binary_location = machine.chromium() or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Browser(options=options, service=Service(shutil.which("chromedriver")))

"""A browser on the page, as a visitor uses it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 180
"""Seconds to wait for anything; only what fails takes as long."""


def found(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    pytest.fail(f"there is no {names[0]} here: apt-get install chromium chromium-driver")


class Visitor:
    """A browser on the page."""

    def __init__(self, driver: Any, address: str, downloads: Path) -> None:
        self.driver, self.address, self.downloads = driver, address, downloads

    def all(self, css: str) -> list[Any]:
        return self.driver.find_elements("css selector", css)

    def wait(self, what: Callable[[], Any]) -> Any:
        """The first truth that comes of asking again and again; the page may redraw meanwhile."""
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if value := what():
                    return value
            except (WebDriverException, IndexError):
                pass
            time.sleep(0.2)
        raise AssertionError(
            f"nothing came; the page says: {self.driver.find_element('tag name', 'body').text}"
        )

    def text(self, css: str) -> str:
        return " ".join(element.text for element in self.all(css))

    def says(self, css: str, words: str) -> str:
        return self.wait(lambda: self.text(css) if words in self.text(css) else "")

    def click(self, css: str) -> None:
        def clicked() -> bool:
            button = self.all(css)[0]
            if not button.is_enabled():
                return False
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
            button.click()
            return True

        self.wait(clicked)

    def open(self, width: int = 1400, height: int = 1400) -> None:
        """Open the page as a screen of this size shows it; narrow ones are phones."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.get(self.address)
        self.says("#note", "result")

    def run(self, script: str) -> Any:
        return self.driver.execute_script(f"return {script}")

    def choose(self, label: str, option: str) -> None:
        """Take an option of a drop-down list."""
        self.wait(lambda: self.all(f"input[aria-label='{label}']")[0].is_displayed())
        box = self.all(f"input[aria-label='{label}']")[0]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
        box.click()
        found = self.wait(
            lambda: [o for o in self.all("ul[role=listbox] li") if o.text.strip("✓ \n") == option]
        )
        found[0].click()

    def open_advanced(self) -> None:
        self.click("#advanced button")

    def finished(self) -> None:
        """Wait until a job has run and another one may begin."""
        self.wait(lambda: self.all("#run")[0].is_enabled() and not self.all("#cancel")[0].is_enabled())

    def upload(self, path: Path) -> None:
        self.wait(lambda: self.all("#upload input[type=file]"))[0].send_keys(str(path))

    def forget_upload(self) -> None:
        button = self.wait(lambda: self.all("#upload button[aria-label='Clear']"))[0]
        self.driver.execute_script("arguments[0].click()", button)
        self.says("#note", "Choose one of the photographs")

    def asked(self) -> list[str]:
        """The addresses that the browser asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

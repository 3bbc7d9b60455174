"""Drives headless Chromium through chromedriver: WebDriver is HTTP and JSON, and takes no other package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
TAB, ENTER = "\ue004", "\ue007"
LOAD_SECONDS = 20.0
WIDE_FONT = """
const style = document.createElement("style");
style.textContent = "* { letter-spacing: 0.12em !important; word-spacing: 0.16em !important; }";
document.head.append(style);
"""  # text as wide as WCAG 1.4.12 asks for, so that no test is about the fonts of a machine


class Browser:
    """One page of a browser with nothing in its profile.

    Args:
        profile: a new, empty folder.
    """

    def __init__(self, profile: Path):
        assert CHROMIUM is not None
        assert DRIVER is not None
        self._driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
        assert self._driver.stdout is not None
        started = next(found for line in self._driver.stdout if (found := re.search(r"on port (\d+)\.", line)))
        self._address = f"http://127.0.0.1:{started[1]}/session"
        switches = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "hide-scrollbars")
        quiet = ("disable-background-networking", "disable-component-update", "disable-sync")
        options = {"binary": CHROMIUM, "args": [*switches, *quiet, f"user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            session = self._ask("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        except BaseException:
            self._stop()
            raise
        self._address += f"/{session}"

    def close(self) -> None:
        """End the browser and its driver."""
        try:
            self._ask("", None, "DELETE")
        finally:
            self._stop()

    def open(self, page: Path, width: int, height: int, scheme: str) -> None:
        """Show a file in a window of that size, `scheme` "light" or "dark"."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", media="", features=features)
        self._ask("/url", {"url": page.as_uri()})
        deadline = time.monotonic() + LOAD_SECONDS  # a busy machine may answer before the page is whole
        while self.run("return document.readyState") != "complete" and time.monotonic() < deadline:
            time.sleep(0.05)

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a function, JavaScript, returns."""
        return self._ask("/execute/sync", {"script": script, "args": arguments})

    def press(self, key: str) -> None:
        """Press a key, and let it go."""
        strokes = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._ask("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def console(self) -> list[dict[str, Any]]:
        """What was written to the console since the last time."""
        return self._ask("/se/log", {"type": "browser"})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._ask("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _ask(self, path: str, body: Any, method: str = "POST") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def _stop(self) -> None:
        self._driver.terminate()
        self._driver.communicate()

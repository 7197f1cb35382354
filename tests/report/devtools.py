"""A small client of Chromium's DevTools protocol, enough to open a page, ask it things, press keys and read its console."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0"]


def find_chromium() -> str | None:
    """The browser's path, where one is installed."""
    return next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)


class Page:
    """One tab. ``complaints`` collects what a person would see as errors or warnings in the console; ``requests`` all that is loaded."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number, self._loaded = socket, 0, False
        self.complaints: list[Any] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events on the way are looked at for complaints."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def open(self, url: str, width: int = 1280, height: int = 900, scheme: str = "light", touch: bool = False) -> None:
        """Load a page at a size and a colour scheme, and wait until it has loaded. touch: as on a phone."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._loaded = False
        self.send("Page.navigate", url=url)
        while not self._loaded:  # the event may come before the command's answer
            self._receive()

    def ask(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key on whatever has the focus."""
        codes = {"Enter": 13, " ": 32, "ArrowRight": 39, "End": 35, "Tab": 9}
        common = {"key": key, "windowsVirtualKeyCode": codes[key], **({"text": "\r"} if key == "Enter" else {})}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Save what the page looks like, its whole length or what is in view."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def _receive(self) -> dict[str, Any]:
        message = json.loads(self._socket.recv(timeout=30))
        params = message.get("params", {})
        self._loaded |= message.get("method") == "Page.loadEventFired"
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"])
        if message.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(params["args"])
        if message.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"])
        return message


@contextlib.contextmanager
def browser(executable: str) -> Iterator[Page]:
    """Start a browser of our own with a fresh profile and give its tab."""
    from websockets.sync.client import connect

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            port_file = Path(profile) / "DevToolsActivePort"
            deadline = time.monotonic() + 60
            while not (port_file.is_file() and port_file.read_text().count("\n")):
                assert process.poll() is None, f"{executable} ended with {process.returncode} before it was ready."
                assert time.monotonic() < deadline, f"{executable} was not ready within a minute."
                time.sleep(0.1)
            port, path = port_file.read_text().split("\n")[:2]
            address = f"ws://127.0.0.1:{port}"
            with connect(address + path, proxy=None) as control:
                control.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
                answer = json.loads(control.recv(timeout=30))
            with connect(f"{address}/devtools/page/{answer['result']['targetId']}", max_size=None, proxy=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(timeout=20)

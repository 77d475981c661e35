"""A headless Chromium, controlled with the DevTools protocol over a pair of pipes."""

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 120  # timeout, generous for busy machines
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, " ": 32, ".": 190, "f": 70}  # to their Windows key codes
CODES = {" ": "Space", ".": "Period", "f": "KeyF"}


class Browser:
    def __init__(self, to: int, back: int):
        self.to, self.back = os.fdopen(to, "wb", buffering=0), os.fdopen(back, "rb")
        self.number, self.session = 0, None
        self.complaints: list[str] = []  # console errors and warnings, exceptions, failed loads
        self.loaded = False

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def open(self, path: Path, width: int, height: int, scheme: str, mobile: bool) -> None:
        """Load a page in a window of this size, with a light or dark colour scheme."""
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.complaints, self.loaded = [], False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.loaded:
            self._read()

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = 30) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + seconds
        while not self.evaluate(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def key(self, name: str, *kinds: str) -> None:
        """Send key events: of these kinds, or a press."""
        for kind in kinds or ("keyDown", "keyUp"):
            about = {"key": name, "code": CODES.get(name, name), "windowsVirtualKeyCode": KEYS[name]}
            self.call("Input.dispatchKeyEvent", type=kind, **about)

    def screenshot(self, path: Path) -> None:
        """Take a screenshot of the full page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def _read(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self.back.read(1)) != b"\0":
            assert byte, "the browser exited"
            data += byte
        message = json.loads(data)
        method, about = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown" or (
            method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert")
        ):
            self.complaints.append(json.dumps(about))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(json.dumps(about["entry"]))
        elif method == "Network.loadingFailed":
            self.complaints.append(json.dumps(about))
        return message


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Chromium with its own profile, killed when the context ends."""
    assert CHROMIUM, "chromium is not installed"
    child_in, to = os.pipe()
    back, child_out = os.pipe()

    def arrange() -> None:  # the browser reads file descriptor 3 and writes 4
        read, write = os.dup(child_in), os.dup(child_out)
        while read in (3, 4) or write in (3, 4):
            read, write = os.dup(read), os.dup(write)
        os.dup2(read, 3)
        os.dup2(write, 4)

    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
    command = [CHROMIUM, *options, "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, preexec_fn=arrange, pass_fds=(3, 4), start_new_session=True
        )
    os.close(child_in)
    os.close(child_out)
    try:
        yield Browser(to, back)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # including its children
        process.wait(SECONDS)

"""Debian's Chromium, driven through its DevTools protocol over a pipe: no driver, no port, no package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.serving import ENVIRONMENT, TIMEOUT, started

_OPTIONS: Final = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-features=Translate,MediaRouter,OptimizationHints", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)  # fmt: skip


class Browser:
    """A running Chromium. Each page has cookies of its own."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._read = b""
        self._number = 0
        self.events: deque[dict[str, Any]] = deque()
        self.exceptions: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its result. Events that come first are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        _write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            got = self._next()
            if got.get("id") == self._number:
                assert "error" not in got, (method, got["error"])
                return dict(got["result"])
            self.events.append(got)

    def event(
        self, session: str, method: str, fits: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> dict[str, Any]:
        """Wait for an event of a page; earlier ones are dropped."""
        while True:
            got = self.events.popleft() if self.events else self._next()
            if got.get("sessionId") == session and got.get("method") == method and fits(got["params"]):
                return dict(got["params"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._answers], [], [], 3 * TIMEOUT)
            assert ready, "the browser says nothing"
            data = os.read(self._answers, 1 << 20)
            assert data, "the browser has ended"
            self._read += data
        message, _, self._read = self._read.partition(b"\0")
        got = dict(json.loads(message))
        if got.get("method") == "Runtime.exceptionThrown":
            self.exceptions.append(got)
        return got


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are not those that DevTools uses."""
    ends = os.pipe()
    made = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in ends]
    for each in ends:
        os.close(each)
    return made[0], made[1]


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Start a browser. Its files are below the folder."""
    (to_read, commands), (answers, to_write) = _pipe(), _pipe()
    # DevTools reads from descriptor 3 and writes to 4.
    command = [
        "bash",
        "-c",
        f'exec "$@" 3<&{to_read} 4>&{to_write}',
        "bash",
        "chromium",
        *_OPTIONS,
        f"--user-data-dir={folder}",
    ]
    try:
        with started(
            command,
            env=ENVIRONMENT | {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)},
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            os.close(to_read)
            os.close(to_write)
            made = Browser(commands, answers)
            made.call("Browser.getVersion")
            yield made
            with suppress(AssertionError):
                made.call("Browser.close")
            process.wait(TIMEOUT)
    finally:
        os.close(commands)
        os.close(answers)


class Page:
    """A page in a context of its own, as a person sees it."""

    def __init__(self, browser: Browser, *, width: int = 1280, height: int = 800) -> None:
        self.browser = browser
        self._context = browser.call("Target.createBrowserContext")["browserContextId"]
        self._target = browser.call("Target.createTarget", url="about:blank", browserContextId=self._context)[
            "targetId"
        ]
        self.session = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    @property
    def exceptions(self) -> list[dict[str, Any]]:
        """What the page's scripts threw and did not catch."""
        return [each["params"] for each in self.browser.exceptions if each["sessionId"] == self.session]

    def close(self) -> None:
        self.browser.call("Target.disposeBrowserContext", browserContextId=self._context)

    def open(self, url: str) -> None:
        """Open an address, and wait until its modules have run."""
        self.call("Page.navigate", url=url)
        self.browser.event(self.session, "Page.loadEventFired")

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of its promise."""
        got = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def until(self, condition: str) -> Any:
        """Wait until a JavaScript condition is true, looking at each change of the page. Return its value."""
        return self.run(
            f"""new Promise((done, failed) => {{
              const look = () => {{
                const found = ({condition});
                if (found) {{ changes.disconnect(); clearTimeout(limit); done(found); }}
                return found;
              }};
              const changes = new MutationObserver(look);
              const limit = setTimeout(
                () => {{ changes.disconnect(); failed(new Error('never: ' + document.body.innerText)); }},
                {TIMEOUT * 1000}
              );
              changes.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
              look();
            }})"""
        )

    def until_shown(self, text: str, element: str = "main") -> None:
        """Wait until an element shows a text."""
        self.until(f"document.querySelector({json.dumps(element)}).innerText.includes({json.dumps(text)})")

    def key(self, key: str, text: str = "") -> None:
        """Press a key."""
        code = {"Tab": 9, "Enter": 13, " ": 32, "Escape": 27}.get(key, 0)
        more = {"text": text or {"Enter": "\r", " ": " "}.get(key, ""), "windowsVirtualKeyCode": code, "code": key}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **more)

    def click(self, text: str, element: str = "button") -> None:
        """Click the shown element with a text."""
        self.run(
            f"[...document.querySelectorAll({json.dumps(element)})].find("
            f"(each) => each.textContent.trim() === {json.dumps(text)} && each.checkVisibility()).click()"
        )

    def picture(self) -> bytes:
        """The page as WebP."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="webp", quality=80)["data"])

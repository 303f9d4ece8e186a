"""Notify systemd of a service's state with sd_notify, from the event loop and without blocking it."""

from __future__ import annotations

import faulthandler
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Final

import trio

from vhostcomm.text import escape

VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""Variables that systemd sets for one process. Children must not inherit them: a QEMU could send messages for us."""

KEPT: Final = 32
"""Maximum messages to keep while systemd doesn't read. The oldest are dropped."""

GATHER: Final = 0.1
"""Seconds to gather changes before a status is sent: a removed guest counts until its port has ended."""

RESEND_INTERVAL: Final = 0.2
"""Seconds before the next attempt if systemd's socket is full or gone."""

STATUS_PAUSE: Final = 5 * RESEND_INTERVAL
"""Minimum seconds between two statuses."""

STATUS_REFRESH: Final = 30.0
"""Seconds after which the status is checked even without a known change."""

STATUS_LIMIT: Final = 300
"""Maximum characters of a status; `systemctl status` shows it on one line."""


class Notifier:
    """Notifies the service manager of a service's state: READY, STATUS, RELOADING, STOPPING, WATCHDOG.

    Without an address, it does nothing.

    Args:
        address: the notify socket's path; one that begins with "@" is abstract.
        beat: seconds between two beats for the watchdog; None without a watchdog.
    """

    def __init__(self, address: str = "", beat: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.beat = beat if address else None
        self.describe: Callable[[], str] = str
        """Returns the state on one line, for people."""
        self._waiting: deque[str] = deque(maxlen=KEPT)
        self._socket: socket.socket | None = None
        self._changed = trio.Event()
        self._last_status = ""
        self._stopping = ""

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """Make the notifier that systemd expects. Removes its variables, so that no child inherits them."""
        found = {name: environment.pop(name, "") for name in VARIABLES}
        watched = found["WATCHDOG_PID"] in {"", str(os.getpid())}
        usec = found["WATCHDOG_USEC"]
        # Half of the watchdog's time, so that one beat may be late.
        beat = int(usec) / 2e6 if watched and usec.isdecimal() and int(usec) else None
        address = found["NOTIFY_SOCKET"]
        return cls(address if address.startswith(("/", "@")) else "", beat)

    async def run(self) -> None:
        """Send waiting messages, feed the watchdog and update the status, until cancelled.

        Only the event loop sends beats: if it is stuck, they end, and systemd restarts the daemon.
        """
        if not self._address:
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_sending)
                if self.beat:
                    # The watchdog ends us with SIGABRT; faulthandler then logs where the loop was stuck.
                    with suppress(OSError, ValueError, AttributeError):
                        faulthandler.enable()
                    nursery.start_soon(self._keep_beating, self.beat)
        finally:
            self._flush()
            if self._socket:
                self._socket.close()

    async def _keep_beating(self, seconds: float) -> None:
        while True:
            self._flush()
            if not self._waiting:  # a beat that can't be sent is dropped: a late one would lie
                self._try_sending("WATCHDOG=1")
            await trio.sleep(seconds)

    async def _keep_sending(self) -> None:
        while True:
            with trio.move_on_after(STATUS_REFRESH):
                await self._changed.wait()
            self._changed = trio.Event()
            await trio.sleep(GATHER)
            self._send_status()
            for _ in range(round(STATUS_PAUSE / RESEND_INTERVAL)):
                await trio.sleep(RESEND_INTERVAL)
                self._flush()

    def changed(self, *_: object) -> None:
        """Note that the status may have changed. May be called at any rate."""
        self._changed.set()

    def ready(self) -> None:
        """Notify that the start is complete."""
        self._send("READY=1")
        self._send_status()

    def stopping(self, why: str) -> None:
        """Notify that the stop begins."""
        self._stopping = f"stopping: {why}"
        self._send("STOPPING=1")
        self._send_status()

    def extend(self, seconds: float) -> None:
        """Extend the timeout of the start, reload or stop in progress by some seconds; systemd kills at its end."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Notify that a reload is in progress inside the block, whether it is then accepted or rejected."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self.ready()

    def _send_status(self) -> None:
        """Send the status if it has changed. It replaces one that still waits."""
        text = "; ".join(filter(None, (self._stopping, self.describe())))
        if text != self._last_status:
            self._last_status = text
            for old in [each for each in self._waiting if each.startswith("STATUS=")]:
                self._waiting.remove(old)
            self._waiting.append(f"STATUS={escape(text, STATUS_LIMIT)}")
        self._flush()

    def _send(self, message: str) -> None:
        """Send a message that must arrive. If that is impossible now, `run` sends it later."""
        self._waiting.append(message)
        self._flush()

    def _flush(self) -> None:
        while self._waiting and self._try_sending(self._waiting[0]):
            self._waiting.popleft()
        if self._waiting:
            self.changed()

    def _try_sending(self, message: str) -> bool:
        if not self._address:
            return True
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._socket.sendto(message.encode(errors="backslashreplace"), self._address)
        except (OSError, ValueError):  # full, gone, or an invalid path
            return False
        return True

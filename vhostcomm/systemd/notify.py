"""What systemd is told of a service: sd_notify, from the event loop, and never in its way."""

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
"""What systemd tells one process, and none that it starts: a QEMU that spoke on our socket would speak for us."""

KEPT: Final = 32
"""Messages that wait where systemd doesn't read; of more the oldest are lost."""

RESEND_INTERVAL: Final = 0.2
"""Seconds before the next try where systemd's socket is full or gone."""

GATHER: Final = 0.1
"""Seconds in which changes gather before the status is told: a guest that goes is counted until its port has ended."""

STATUS_PAUSE: Final = 1.0
"""Seconds at least from one status to the next."""

STATUS_REFRESH: Final = 30.0
"""Seconds after which the status is looked at although nothing is known to have changed."""

STATUS_LIMIT: Final = 300
"""Characters of a status; `systemctl status` shows it in a line."""


class Notifier:
    """Sends datagrams to a notify socket. Without an address it does nothing.

    Args:
        address: the socket's path; one that begins with "@" is abstract.
        beat: seconds from one beat of the watchdog to the next; None for no watchdog.
    """

    def __init__(self, address: str = "", beat: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.beat = beat if address else None
        self._waiting: deque[str] = deque(maxlen=KEPT)
        self._stuck = trio.Event()
        self._socket: socket.socket | None = None

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """The one that systemd wants to be told by. Its variables are taken out, so that nobody inherits them."""
        found = {name: environment.pop(name, "") for name in VARIABLES}
        watched = found["WATCHDOG_PID"] in {"", str(os.getpid())}
        usec = found["WATCHDOG_USEC"]
        # Half the time: one beat may be late without harm.
        beat = int(usec) / 2e6 if watched and usec.isdecimal() and int(usec) else None
        address = found["NOTIFY_SOCKET"]
        return cls(address if address.startswith(("/", "@")) else "", beat)

    def __bool__(self) -> bool:
        return bool(self._address)

    def tell(self, *assignments: str) -> None:
        """Send something that must arrive; where it can't be sent now, `keep_sending` does it later."""
        if self._address:
            self._waiting.append("\n".join(assignments))
            self._flush()

    def tell_status(self, text: str) -> None:
        """Send a status, for people. One that still waits is left out for it."""
        for old in [each for each in self._waiting if each.startswith("STATUS=")]:
            self._waiting.remove(old)
        self.tell(f"STATUS={escape(text, STATUS_LIMIT)}")

    def tell_beat(self) -> None:
        """Tell the watchdog that the loop runs. A beat that can't be sent is not kept: it is of now."""
        if self._address and not self._waiting:
            self._send("WATCHDOG=1")

    async def keep_sending(self) -> None:
        """Send what could not be sent at once, until cancelled."""
        while True:
            await self._stuck.wait()
            await trio.sleep(RESEND_INTERVAL)
            self._flush()

    def _flush(self) -> None:
        while self._waiting and self._send(self._waiting[0]):
            self._waiting.popleft()
        if not self._waiting:
            self._stuck = trio.Event()
        else:
            self._stuck.set()

    def _send(self, message: str) -> bool:
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._socket.sendto(message.encode(errors="backslashreplace"), self._address)
        except (OSError, ValueError):  # full, gone, or a path that is none
            return False
        return True

    def close(self) -> None:
        """Send what waits, if it can be sent, and close."""
        self._flush()
        if self._socket:
            self._socket.close()
            self._socket = None


class Manager:
    """The service manager, and what it is told: READY, STATUS, RELOADING, STOPPING, WATCHDOG.

    Args:
        notifier: how.
        describe: the state in a line, for people.
    """

    def __init__(self, notifier: Notifier | None, describe: Callable[[], str]) -> None:
        self._notifier = notifier or Notifier()
        self._describe = describe
        self._changed = trio.Event()
        self._last_status = ""
        self._stopping = ""

    async def run(self) -> None:
        """Feed the watchdog and keep the status, until cancelled.

        The beats come from the event loop and from nowhere else: where it is stuck they end, and systemd starts a
        daemon that isn't.
        """
        if not self._notifier:
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._notifier.keep_sending)
                nursery.start_soon(self._keep_status)
                if self._notifier.beat:
                    # The watchdog ends us by SIGABRT: where the loop was stuck is then in the journal.
                    with suppress(OSError, ValueError, AttributeError):
                        faulthandler.enable()
                    nursery.start_soon(self._keep_beating, self._notifier.beat)
        finally:
            self._notifier.close()

    async def _keep_beating(self, seconds: float) -> None:
        while True:
            self._notifier.tell_beat()
            await trio.sleep(seconds)

    async def _keep_status(self) -> None:
        while True:
            with trio.move_on_after(STATUS_REFRESH):
                await self._changed.wait()
            self._changed = trio.Event()
            await trio.sleep(GATHER)
            self._tell_status()
            await trio.sleep(STATUS_PAUSE)

    def _tell_status(self) -> None:
        text = "; ".join(filter(None, (self._stopping, self._describe())))
        if text != self._last_status:
            self._last_status = text
            self._notifier.tell_status(text)

    def changed(self, *_: object) -> None:
        """Something has happened that may change the status. As often as it likes."""
        self._changed.set()

    def ready(self) -> None:
        """What was to be started is."""
        self._notifier.tell("READY=1")
        self._tell_status()

    def stopping(self, why: str) -> None:
        """The end begins."""
        self._stopping = f"stopping: {why}"
        self._notifier.tell("STOPPING=1")
        self._tell_status()

    def extend(self, seconds: float) -> None:
        """What is under way may take so many more seconds; else systemd kills at the end of its own timeout."""
        self._notifier.tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """A reload is under way inside, whether it is taken or not."""
        self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self._notifier.tell("READY=1")
            self._tell_status()

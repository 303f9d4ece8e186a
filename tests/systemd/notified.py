"""A notify socket like systemd's."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.serving import ENVIRONMENT, TIMEOUT


class NotifySocket:
    """Receives the messages of a service that is started with `environment`."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self.sock = sock
        self.sock.settimeout(TIMEOUT)
        self.environment = ENVIRONMENT | {"NOTIFY_SOCKET": address}
        self.heard: list[str] = []

    def next(self) -> str:
        """The next message."""
        message = self.sock.recv(4096).decode()
        self.heard.append(message)
        return message

    def hears(self, what: str) -> str:
        """Wait for a message that contains this text."""
        while True:
            try:
                message = self.next()
            except TimeoutError:
                raise AssertionError(f"no {what!r} in {self.heard}") from None
            if what in message:
                return message

    def hears_all(self, *messages: str) -> None:
        """Wait until each of these messages has come, in any order."""
        while missing := set(messages) - set(self.heard):
            try:
                self.next()
            except TimeoutError:
                raise AssertionError(f"no {missing} in {self.heard}") from None

    def rest(self) -> list[str]:
        """All messages up to now, without waiting."""
        self.sock.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.next()
        self.sock.settimeout(TIMEOUT)
        return self.heard


@contextmanager
def notify_socket(path: Path | None = None) -> Iterator[NotifySocket]:
    """A notify socket at a path, or an abstract one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        if path is None:
            name = f"vhostcomm-test-{secrets.token_hex(8)}"
            sock.bind(f"\0{name}")
            yield NotifySocket(sock, f"@{name}")
        else:
            sock.bind(str(path))
            yield NotifySocket(sock, str(path))

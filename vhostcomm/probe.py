"""Ask a host's daemon what a guest asks. Shares nothing with the daemon except `vchannel`."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from vchannel import (
    NEED_DATA,
    USUAL_GUEST_ID,
    Connection,
    HostCommand,
    Known,
    Request,
    Response,
    Role,
    decode_text,
    encode_integer,
)
from vhostcomm.linux.starting import attempts

CONNECT_TIMEOUT: Final = 2.0

NOTIFICATIONS: Final = (HostCommand.GUEST_POWER, HostCommand.GUEST_TIMESTAMP)
"""Notifications of a booting guest, which have no answer."""

QUESTIONS: Final = (
    HostCommand.UPDATE_DEADLINE,
    HostCommand.GUEST_SERIAL,
    HostCommand.GUEST_UUID,
    HostCommand.CLUSTER_UUID,
    HostCommand.HOST_SERIAL,
    HostCommand.HOST_MODEL,
    HostCommand.HOST_MAC,
    HostCommand.HOST_VERSION,
    HostCommand.VMM_VERSION,
    HostCommand.GUEST_CPU,
    HostCommand.NETWORK_RESULT,
    HostCommand.HOST_VERSION_SECOND,
)

GUEST_IDS: Final = {HostCommand.CLUSTER_UUID: 3_000_000, HostCommand.GUEST_TIMESTAMP: 0}
"""Guest ids in the one public trace; all other commands have the usual one."""

TIMED_OUT: Final = "guest_command.c:86 Failed to retrieve message from host [timeout]"

COMPLAINTS: Final = {
    HostCommand.UPDATE_DEADLINE: (
        f"install.cgi: {TIMED_OUT}",
        "install.cgi: vdsm_get_update_deadline.c:41 Failed to get vdsm update deadline.",
        "install.cgi: The vdsm is newer than license expire time.",
    ),
    HostCommand.GUEST_SERIAL: (
        f"synoagentregisterd: {TIMED_OUT}",
        "synoagentregisterd: vdsm_serial.c:84 Failed to get vdsm sn",
        "synoagentregisterd: vdsm_serial.c:128 Failed to get vdsm sn",
    ),
}
"""What a genuine guest logs without an answer (from public notes)."""


@frozen
class Answer:
    """The answer to one question.

    Args:
        command: the question.
        text: the answer's text, which may be empty; None without an answer.
        milliseconds: from the question to the answer; None without an answer.
        problem: what is wrong with the answer's data.
    """

    command: HostCommand
    text: str | None
    milliseconds: float | None
    problem: str = ""

    @property
    def missing(self) -> bool:
        """Whether a guest would lack it: no answer, or an empty one to a question that is known to have a value."""
        return self.text is None or (self.text == "" and self.command.known is Known.CONFIRMED)


class UnreachableError(Exception):
    """The daemon can't be asked. `advice` is for the user; `is_absent` is True if no process listens at the address."""

    def __init__(self, why: str, advice: str, *, is_absent: bool = False) -> None:
        super().__init__(why)
        self.advice = advice
        self.is_absent = is_absent


class EndedError(UnreachableError):
    """The daemon ended the connection; it serves one client per guest."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the connection ended: {why}",
            "If QEMU is connected, its guest is being answered, as vhostcomm info shows, and the daemon rejects other "
            "clients. Its log says why it closed this connection.",
        )


def complaints(answer: Answer) -> tuple[str, ...]:
    """Return the lines that a guest logs without this answer."""
    return COMPLAINTS.get(answer.command, (TIMED_OUT,))


def ask(address: str, timeout: float) -> Iterator[Answer]:
    """Connect, send the notifications of a booting guest, and ask every question in turn.

    The address is a unix socket's path, or ``tcp:HOST:PORT``. `timeout` is seconds to wait for each answer.

    Raises:
        UnreachableError: no daemon can be asked, or the connection ended.
    """
    with connect(address) as sock:
        guest = Connection(Role.GUEST)
        for command in NOTIFICATIONS:
            data = encode_integer(int(time.time())) if command is HostCommand.GUEST_TIMESTAMP else b""
            guest_id = GUEST_IDS.get(command, USUAL_GUEST_ID)
            _send(sock, guest, Request.of(command, data, needs_response=False, guest_id=guest_id))
        for command in QUESTIONS:
            yield _question(sock, guest, command, timeout)


def _send(sock: socket.socket, guest: Connection, request: Request) -> None:
    try:
        sock.sendall(guest.send(request))
    except TimeoutError:
        pass  # the daemon doesn't read, so it won't answer either
    except OSError as error:
        raise EndedError(str(error.strerror)) from None


def _question(sock: socket.socket, guest: Connection, command: HostCommand, timeout: float) -> Answer:
    request = Request.of(command, guest_id=GUEST_IDS.get(command, USUAL_GUEST_ID))
    begin = time.perf_counter()
    sock.settimeout(timeout)
    _send(sock, guest, request)
    while (left := begin + timeout - time.perf_counter()) > 0:
        sock.settimeout(left)
        try:
            data = sock.recv(65536)
        except TimeoutError:
            break
        except OSError as error:
            raise EndedError(str(error.strerror)) from None
        if not data:
            raise EndedError("the daemon closed it")
        milliseconds = (time.perf_counter() - begin) * 1000
        guest.receive_data(data)
        while (event := guest.next_event()) is not NEED_DATA:
            if isinstance(event, Response) and event.request is request:
                return Answer(command, decode_text(event.data), milliseconds, str(event.problem or ""))
    guest.forget(request)
    return Answer(command, None, None)


def connect(address: str) -> socket.socket:
    """Connect to a daemon. Wait for one that is just starting.

    Raises:
        UnreachableError: no daemon can be reached; with advice.
    """
    folders = [] if address.startswith("tcp:") else [Path(address).parent]
    for _ in attempts(*folders):
        try:
            return _connect(address)
        except (OSError, ValueError) as error:  # ValueError: of a host's name
            failed = error
            is_absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)
            if not is_absent:
                break
    why = failed.strerror if isinstance(failed, OSError) else ""
    raise UnreachableError(f"{address}: {why or failed}", _advice(address, failed), is_absent=is_absent)


def _connect(address: str) -> socket.socket:
    if address.startswith("tcp:"):
        host, _, port = address.removeprefix("tcp:").rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(CONNECT_TIMEOUT)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def _advice(address: str, error: Exception) -> str:
    start = f"vhostcomm serve --sock {address}"
    if address.startswith("tcp:"):
        return f"Is the daemon running? Start it: {start}"
    match error:
        case FileNotFoundError():
            return f"There is no such socket. Is the daemon running? Start it: {start}"
        case ConnectionRefusedError():
            if not Path(address).is_socket():
                return "That is not a socket. Give the socket that the daemon listens on."
            return f"The socket is a leftover: nobody listens. Start the daemon again: {start}"
        case PermissionError():
            return "You may not use the socket. Ask as root or as the daemon's user, or see --socket-mode and --socket-group."
        case _:
            return f"Is the daemon running, and is this its socket? Start it: {start}"

"""A real daemon, a client of its control surface, and guests that answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.serving import FakeGuest, Serving, fake_guest
from vchannel import NEED_DATA, Command, HostCommand, Request

Answers = dict[int, bytes | Callable[[], bytes | None]]

INFORMATION = b'{"data":{"dsm_setting":{"data":{"http_port":5000}},"ip":{"data":[{"ip":"10.0.2.15","name":"eth0"}]}}}\0'


@contextmanager
def controlled(folder: Path, *words: str | Path, **options: Any) -> Iterator[tuple[Serving, httpx.Client]]:
    """A daemon with one guest, `nas`, and a client of its control surface."""
    control = folder / "control"
    with (
        Serving("--sock", folder / "nas", "--control", control, *words, **options) as daemon,
        client(control) as http,
    ):
        yield daemon, http


def client(control: Path) -> httpx.Client:
    # Without `verify=False` each client reads all of the machine's certificates, which nothing here needs.
    transport = httpx.HTTPTransport(uds=str(control), verify=False)
    return httpx.Client(transport=transport, base_url="http://x", timeout=30)


class Answering:
    """A guest that asks its serial number, so it is ready, and then answers its host in a thread.

    An answer that is None ends its connection instead; a command without one is left unanswered.
    """

    def __init__(self, guest: FakeGuest, answers: Answers) -> None:
        self.guest = guest
        self.answers = answers
        self.asked: list[Command] = []
        guest.serial()
        guest.sock.settimeout(None)  # the guest of a module may be idle for long
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                while (event := self.guest.connection.next_event()) is not NEED_DATA:
                    if isinstance(event, Request) and not self._answer(event):
                        return
                data = self.guest.sock.recv(65536)
                if not data:
                    return
                self.guest.connection.receive_data(data)
        except OSError:
            return

    def _answer(self, request: Request) -> bool:
        self.asked.append(request.command)
        answer = self.answers.get(int(request.command))
        if callable(answer):
            answer = answer()
            if answer is None:
                self.guest.sock.shutdown(2)
                return False
        if answer is not None:
            self.guest.sock.sendall(self.guest.connection.send(request.reply(answer)))
        return True

    def reboots(self) -> None:
        """Report a new start, as the genuine guest does."""
        self.guest.sock.sendall(self.guest.connection.send(Request.of(HostCommand.GUEST_POWER, needs_response=False)))

    def ended(self) -> None:
        self._thread.join(20)


@contextmanager
def answering(where: Path, answers: Answers) -> Iterator[Answering]:
    with fake_guest(where) as guest:
        made = Answering(guest, answers)
        try:
            yield made
        finally:
            with suppress(OSError):
                guest.sock.shutdown(2)
            made.ended()


def post(http: httpx.Client, path: str, **body: Any) -> tuple[int, Any]:
    answer = http.post(path, json=body)
    return answer.status_code, answer.json()

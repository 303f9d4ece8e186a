"""Daemons of the hosts of a cluster, and guests that ask them all the time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.serving import ENVIRONMENT, FakeGuest, Serving, fake_guest, run_vhostcomm

HOSTS_TIMEOUT: Final = 60.0
"""Seconds: an election and the deadlines of a daemon's requests add up to ten on an idle machine."""


class Host(Serving):
    """A daemon with its own folder for its file, sockets and state. Its clock may be wrong, for example by "-1h"."""

    def __init__(
        self,
        folder: Path,
        name: str,
        cluster: str,
        *words: str,
        file: str = "",
        expect_exit: int = 0,
        clock: str = "",
        **environment: str,
    ) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir(exist_ok=True)
        self.control = self.folder / "control"
        (self.folder / "own.toml").write_text(file.replace("SOCK", str(self.folder / "nas")))
        super().__init__(
            "--config", self.folder / "own.toml", "--cluster", cluster, "--cluster-host", name,
            "--control", self.control, *words,
            expect_exit=expect_exit, fresh=bool(clock),
            env=ENVIRONMENT | {"STATE_DIRECTORY": str(self.folder)} | _wrong(clock) | environment,
        )  # fmt: skip
        self.timeout = HOSTS_TIMEOUT

    @property
    def sock(self) -> Path:
        """The socket of its guest nas."""
        return self.folder / "nas"

    def guests(self) -> dict[str, dict[str, Any]]:
        """What the daemon lists, by the guest's name."""
        done = run_vhostcomm("guests", "--json", "--control", self.control)
        return {each["name"]: each for each in json.loads(done.stdout)}


def _wrong(clock: str) -> dict[str, str]:
    """The environment that makes a process's clock wrong: a library replaces the C library's functions."""
    if not clock:
        return {}
    [library] = Path("/usr/lib").glob("*-linux-gnu/faketime/libfaketimeMT.so.1")
    return {"LD_PRELOAD": str(library), "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


NAS = '[guests.nas]\nsock = "SOCK"\n'
"""The file of a host that has a guest nas, whose identity is in the tree."""


class Asking:
    """A guest that asks its questions one after the other; every one has to be answered."""

    def __init__(self, guest: FakeGuest) -> None:
        self._guest = guest
        self._end = threading.Event()
        self._news = threading.Condition()
        self.serials: list[str] = []
        """Different answers to the question for its serial number, in their order."""
        self.count = 0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        try:
            while not self._end.wait(0.01):
                found = self._guest.serial()
                with self._news:
                    self.count += 1
                    if self.serials[-1:] != [found]:
                        self.serials.append(found)
                    self._news.notify_all()
        except Exception as error:  # noqa: BLE001 - raised at the end
            self.error = error

    def assert_hears(self, serial: str, timeout: float = HOSTS_TIMEOUT) -> None:
        """Wait until the last answer is this serial number."""
        with self._news:
            assert self._news.wait_for(lambda: self.serials[-1:] == [serial], timeout), self.serials

    def more(self, answers: int = 20, timeout: float = HOSTS_TIMEOUT) -> None:
        """Wait for further answers."""
        with self._news:
            wanted = self.count + answers
            assert self._news.wait_for(lambda: self.count >= wanted, timeout), self.error

    def finish(self) -> None:
        self._end.set()
        self._thread.join(30)
        assert self.error is None, self.error


@contextmanager
def asking(sock: Path) -> Iterator[Asking]:
    """A guest that asks until the end of the block."""
    with fake_guest(sock) as guest:
        made = Asking(guest)
        try:
            yield made
        finally:
            made.finish()

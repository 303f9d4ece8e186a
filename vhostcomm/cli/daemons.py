"""Which daemon a verb asks: the one that is said, or all there are on this host."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

from attrs import frozen
from cyclopts import Group, Parameter

from vhostcomm import values
from vhostcomm.address import Listen, ListenTcp, control_address, control_places
from vhostcomm.cli.output import print_error
from vhostcomm.errors import UsageError, VhostcommError

if TYPE_CHECKING:
    from vhostcomm.control.client import Client

_DAEMON = Group("The daemon", sort_key=9)

LOOK: Final = 1.0
"""Seconds to find out whether somebody listens on a socket; it says so at once."""


@frozen
class Daemon:
    """Which daemon to ask.

    Args:
        control: its control surface.
        control_token: what it wants to be shown over TCP.
    """

    control: Annotated[
        str,
        Parameter(
            name="--control",
            metavar="ADDRESS",
            env_var="VHOSTCOMM_CONTROL",
            group=_DAEMON,
            show_default=False,
            help="Where it listens: a path (by default every daemon is found that has one in the runtime directory) or "
            "tcp:HOST:PORT.",
        ),
    ] = ""
    control_token: Annotated[
        str,
        Parameter(
            name="--control-token",
            metavar="TOKEN",
            env_var="VHOSTCOMM_CONTROL_TOKEN",
            group=_DAEMON,
            show_default=False,
            help="For one over TCP; better in the environment.",
        ),
    ] = ""

    @contextmanager
    def asked(self, verb: str, patience: float | None = None) -> Iterator[Daemons]:
        """Somebody to ask: the daemon that is said, else each that has its socket in the runtime directory.

        Args:
            verb: what it is for, for their log.
            patience: seconds for answers; as long as a busy daemon may take when None.

        Raises:
            UsageError: there can't be one there.
        """
        from vhostcomm.control.client import MARGIN, Client

        try:
            token = self.control_token and values.token(self.control_token)
        except ValueError as error:
            raise UsageError(f"--control-token (VHOSTCOMM_CONTROL_TOKEN): {error}") from None
        with ExitStack() as cleanup:
            yield Daemons(
                [
                    cleanup.enter_context(Client(where, token, verb, margin=patience or MARGIN))
                    for where in self._places()
                ]
            )

    def _places(self) -> list[Listen | ListenTcp]:
        try:
            if not self.control and len(found := control_places(os.environ)) > 1 and (live := [*filter(_lives, found)]):
                return [*live]
            where = control_address(self.control, os.environ) if self.control or not found else found[0]
        except ValueError as error:
            raise UsageError(f"--control: {error}") from None
        if where is None:
            raise UsageError("--control none is for a daemon; say where the one to ask listens")
        return [where]


@frozen
class Daemons:
    """The daemons to ask, at least one."""

    clients: list[Client]

    def guests(self) -> list[dict[str, Any]]:
        """Every guest of each, in a line.

        Raises:
            ControlError: the only daemon doesn't answer. One of several is told and left out.
        """
        return [guest for _, found in self._listings() for guest in found]

    def with_guest(self, name: str | None) -> tuple[Client, str]:
        """The daemon of a guest, and the guest's name; None for the only guest there is.

        Raises:
            ControlError: a daemon doesn't answer.
            UsageError: there is no such guest, or more than one.
        """
        if name is not None and len(self.clients) == 1:
            return self.clients[0], name
        return self._choose(name, self._listings(), [])

    def with_first_word(self, words: list[str]) -> tuple[Client, str, list[str]]:
        """The daemon and the guest that the first word names, and the other words; without such a guest the only one."""
        listings = self._listings()
        named = words and any(words[0] == each["name"] for _, found in listings for each in found)
        rest = words[1:] if named else words
        client, name = self._choose(words[0] if named else None, listings, rest)
        return client, name, rest

    def events(self) -> Iterator[dict[str, Any]]:
        """What happens to the guests of each; see `Client.events`. It ends with an error when the last of them does."""
        if len(self.clients) == 1:
            yield from self.clients[0].events()
            return
        # A thread each: a stream blocks. They end with the process.
        happened: queue.SimpleQueue[dict[str, Any] | VhostcommError] = queue.SimpleQueue()
        for client in self.clients:
            threading.Thread(target=_follow, args=(client, happened), daemon=True).start()
        left = len(self.clients)
        while True:
            event = happened.get()
            if not isinstance(event, VhostcommError):
                yield event
                continue
            left -= 1
            if not left:
                raise event
            print_error(f"vhostcomm: {event}")

    def _listings(self) -> list[tuple[Client, list[dict[str, Any]]]]:
        found = []
        for client in self.clients:
            try:
                found.append((client, client.get("/guests")["guests"]))
            except VhostcommError as error:
                if len(self.clients) == 1:
                    raise
                print_error(f"vhostcomm: {error}")
        return found

    def _choose(
        self, name: str | None, listings: list[tuple[Client, list[dict[str, Any]]]], rest: list[str]
    ) -> tuple[Client, str]:
        there = [(client, str(each["name"])) for client, found in listings for each in found]
        fitting = [each for each in there if name in (None, each[1])]
        names = ", ".join(each for _, each in there)
        if len(fitting) == 1 and len(rest) < 3:
            return fitting[0]
        if not there:
            raise UsageError("no guest is served")
        if name is None and rest:
            raise UsageError(f"there is no guest {rest[0]!r}; name one of {names}")
        if name is None:
            raise UsageError(f"name one of the guests: {names}")
        if not fitting:
            raise UsageError(f"there is no guest {name!r}; served are: {names}")
        where = " and ".join(f"--control {client.where}" for client, _ in fitting)
        raise UsageError(f"several daemons serve a guest {name!r}: say which with {where}")


def _follow(client: Client, happened: queue.SimpleQueue[dict[str, Any] | VhostcommError]) -> None:
    try:
        for event in client.events():
            happened.put(event)
    except VhostcommError as error:
        happened.put(error)


def _lives(place: Listen) -> bool:
    """Whether somebody listens there whom we may ask."""
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(LOOK)
        try:
            trial.connect(str(place.path))
        except OSError:
            return False
    return True

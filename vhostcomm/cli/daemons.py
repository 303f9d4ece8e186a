"""Choose the daemon that a verb asks: the one of --control, or all daemons on this host."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from attrs import define, field, frozen
from cyclopts import Group, Parameter

from vhostcomm.cli.hosts import Listing, merged, split_variable, that_answer, that_have_it
from vhostcomm.cli.output import print_error
from vhostcomm.config import values
from vhostcomm.config.address import Listen, ListenTcp
from vhostcomm.config.http_address import (
    CONTROL_NAME,
    control_address,
    control_folders,
    control_places,
    runtime_directories,
)
from vhostcomm.config.ssh_address import SCHEME, Forwarded, SshAddress, parse
from vhostcomm.errors import UsageError, VhostcommError
from vhostcomm.starting import attempts, is_starting

if TYPE_CHECKING:
    from vhostcomm.control.client import Client


Where: TypeAlias = Listen | ListenTcp | Forwarded

_DAEMON = Group("The daemon", sort_key=9)

CONNECT_TIMEOUT: Final = 1.0
"""Seconds to find out whether a daemon listens on a socket. A connection takes no time."""

ADDRESS_TIMEOUT: Final = 2.0
"""Seconds for a guest's answer with its address; a guest that is up answers in milliseconds."""

ASKED_AT_ONCE: Final = 16
"""Guests whose address is requested at the same time; the daemon has as many connections for several clients."""


@frozen
class DaemonOptions:
    """Which daemon to ask.

    Args:
        control: the addresses of control surfaces.
        control_token: the token for a control surface over TCP.
    """

    control: Annotated[
        list[str] | None,
        Parameter(
            name="--control",
            metavar="ADDRESS",
            env_var="VHOSTCOMM_CONTROL",
            env_var_split=split_variable,
            negative=(),
            group=_DAEMON,
            show_default=False,
            help="The daemon's address: a path, tcp:HOST:PORT, or ssh://[USER@]HOST[:PORT][/PATH] for another host. May be "
            "repeated: each guest is then asked on the host that has it. By default every daemon in the runtime directory.",
        ),
    ] = None
    control_token: Annotated[
        str,
        Parameter(
            name="--control-token",
            metavar="TOKEN",
            env_var="VHOSTCOMM_CONTROL_TOKEN",
            group=_DAEMON,
            show_default=False,
            help="The token of a daemon over TCP; safer in the environment.",
        ),
    ] = ""

    @contextmanager
    def asked(self, verb: str, timeout: float | None = None) -> Iterator[Daemons]:
        """Provide the daemons to ask: the one of --control, else all with a socket in the runtime directory.

        Args:
            verb: the verb that asks, for the daemons' logs.
            timeout: seconds for answers; None to wait as long as a busy daemon may need.

        Raises:
            UsageError: the address or the token is invalid.
        """
        from vhostcomm.control.client import MARGIN, Client

        try:
            token = self.control_token and values.token(self.control_token)
        except ValueError as error:
            raise UsageError(f"--control-token (VHOSTCOMM_CONTROL_TOKEN): {error}") from None
        with self._found() as find:
            yield Daemons(
                lambda: [Client(where, token, verb, margin=timeout or MARGIN) for where in find()],
                of_hosts=len(self.control or ()) > 1,
            )

    @contextmanager
    def _found(self) -> Iterator[Callable[[], Sequence[Where]]]:
        """Provide a function that finds the daemons; other hosts are connected inside the block."""
        given = [_address(each) for each in self.control or () if each]
        remote = [each for each in given if isinstance(each, SshAddress)]
        if not remote:
            here = [each for each in given if not isinstance(each, SshAddress)]
            yield (lambda: here) if here else _local
            return
        from vhostcomm.control.over_ssh import forwarded

        with forwarded(remote) as reached:
            left = iter(reached)
            places = [next(left) if isinstance(each, SshAddress) else each for each in given]
            yield lambda: places


def _local() -> list[Where]:
    """Find the daemons of this host."""
    found: list[Listen] = []
    for _ in attempts(*control_folders()):
        found = control_places()
        if live := [*filter(_lives, found)] if len(found) > 1 else found:
            return [*live]
    usual = _address(str(found[0].path if found else runtime_directories()[0] / CONTROL_NAME))
    assert not isinstance(usual, SshAddress)
    return [usual]


def _address(text: str) -> Listen | ListenTcp | SshAddress:
    try:
        where = parse(text) if text.startswith(SCHEME) else control_address(text)
    except ValueError as error:
        raise UsageError(f"--control: {error}") from None
    if where is None:
        raise UsageError("--control none is for a daemon; give the address of the daemon to ask")
    return where


class _NoGuestError(UsageError):
    """No daemon serves this guest, at least not yet."""


@define
class Daemons:
    """The daemons to ask, at least one.

    Args:
        find: finds them.
        of_hosts: each is of another host, where all may list the same guests; a guest runs on one of them.
    """

    find: Callable[[], list[Client]]
    of_hosts: bool = False
    clients: list[Client] = field(init=False)
    _printed: set[str] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        self.clients = self.find()

    def guests(self, *, addresses: bool = False) -> tuple[list[dict[str, Any]], bool]:
        """Return the guests of all daemons, and whether all daemons answered. Prints the errors of the others.

        Args:
            addresses: ask guests that are ready for their address, if it isn't known yet.

        Raises:
            ControlError: the only daemon doesn't answer.
        """
        listings, failed = self._listings()
        unknown = [
            (client, str(each["name"]))
            for client, found in listings
            for each in found
            if addresses and each["state"] == "ready" and not each["address"]
        ]
        if unknown:
            with ThreadPoolExecutor(min(len(unknown), ASKED_AT_ONCE)) as pool:
                [*pool.map(lambda each: _ask_address(*each), unknown)]
            asked = {id(client) for client, _ in unknown}
            listings = [(client, _again(client, found) if id(client) in asked else found) for client, found in listings]
        for error in failed:
            self._print_once(error)
        if self.of_hosts:
            return merged(listings), not failed
        return [guest for _, found in listings for guest in found], not failed

    def only(self) -> Client:
        """Return the only daemon.

        Raises:
            UsageError: there are several.
        """
        if len(self.clients) > 1:
            which = " or ".join(f"--control {each.where}" for each in self.clients)
            raise UsageError(f"several daemons run: choose one with {which}")
        return self.clients[0]

    def with_guest(self, name: str | None) -> tuple[Client, str]:
        """Return the daemon of a guest and the guest's name. For None, it is the only guest.

        Raises:
            ControlError: a daemon that may serve the guest doesn't answer.
            UsageError: there is no such guest, or more than one.
        """
        if name is not None and len(self.clients) == 1 and not is_starting():
            return self.clients[0], name
        client, found, _ = self._chosen(lambda _: name, [])
        return client, found

    def with_first_word(self, words: list[str]) -> tuple[Client, str, list[str]]:
        """Return daemon and guest by the first word, and the other words. If that is no guest, use the only guest."""

        def first(there: set[str]) -> str | None:
            return words[0] if words and words[0] in there else None

        return self._chosen(first, words)

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events of all daemons; see `Client.events`. When the last stream ends, its error is raised."""
        if len(self.clients) == 1:
            yield from self.clients[0].events()
            return
        # One thread for each daemon, because a stream blocks. They end with the process.
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
            self._print_once(event)

    def _print_once(self, error: VhostcommError) -> None:
        """Print an error of one of several daemons, only once."""
        if str(error) not in self._printed:
            self._printed.add(str(error))
            print_error(f"vhostcomm: {error}")

    def _listings(self) -> tuple[list[Listing], list[VhostcommError]]:
        """Ask all daemons at once. Return the guests of each, and the errors of those that don't answer."""
        if len(self.clients) == 1:
            return [(self.clients[0], self.clients[0].get("/guests")["guests"])], []
        listings, failed = [], []
        with ThreadPoolExecutor(len(self.clients)) as pool:
            for client, asked in [(each, pool.submit(each.get, "/guests")) for each in self.clients]:
                try:
                    listings.append((client, asked.result()["guests"]))
                except VhostcommError as error:
                    failed.append(error)
        return listings, failed

    def _chosen(self, name_of: Callable[[set[str]], str | None], words: list[str]) -> tuple[Client, str, list[str]]:
        """Return daemon, guest and remaining words. Wait for a guest of a daemon that is just starting."""
        for _ in attempts(*control_folders()):
            listings, failed = self._listings()
            name = name_of({str(each["name"]) for _, found in listings for each in found})
            rest = words[1:] if words and name == words[0] else words
            try:
                return *self._choose(name, rest, listings, failed), rest
            except _NoGuestError as error:
                missing = error
                self.clients = self.find()
        raise missing

    def _choose(
        self,
        name: str | None,
        rest: list[str],
        listings: list[Listing],
        failed: list[VhostcommError],
    ) -> tuple[Client, str]:
        from vhostcomm.control.client import ControlError

        there = [(client, str(each["name"])) for client, found in listings for each in found]
        fitting = [each for each in there if name in (None, each[1])]
        if self.of_hosts:
            fitting = that_answer(that_have_it(fitting, listings, complete=not failed))
        names = ", ".join(dict.fromkeys(each for _, each in there))
        if failed and (name is None or not fitting):
            # A daemon that failed may serve the guest too, or may serve other guests.
            which = (
                f"whether it serves {name!r} is not known"
                if name
                else "name the guest, since it isn't known to be the only one"
            )
            raise ControlError(f"{'; '.join(map(str, failed))}; {which}")
        if len(fitting) == 1 and len(rest) < 3:
            return fitting[0]
        if not there:
            raise _NoGuestError("no guest is served")
        if name is None and rest:
            raise _NoGuestError(f"there is no guest {rest[0]!r}; name one of {names}")
        if name is None:
            raise UsageError(f"name one of the guests: {names}")
        if not fitting:
            raise _NoGuestError(f"there is no guest {name!r}; served are: {names}")
        where = " and ".join(f"--control {client.where}" for client, _ in fitting)
        raise UsageError(f"several daemons serve a guest {name!r}: choose one with {where}")


def _ask_address(client: Client, guest: str) -> None:
    """Ask a guest for its information, which the daemon keeps; without an answer the address stays unknown."""
    body = {"command": "get_information", "timeout": ADDRESS_TIMEOUT}
    with suppress(VhostcommError):
        client.post(client.guest(guest, "call"), body, takes=ADDRESS_TIMEOUT)


def _again(client: Client, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Read a daemon's guests again; return the previous ones if it no longer answers."""
    with suppress(VhostcommError):
        return [*client.get("/guests")["guests"]]
    return found


def _follow(client: Client, happened: queue.SimpleQueue[dict[str, Any] | VhostcommError]) -> None:
    try:
        for event in client.events():
            happened.put(event)
    except VhostcommError as error:
        happened.put(error)


def _lives(place: Listen) -> bool:
    """Return whether a daemon listens there. True also for a busy or forbidden one, whose error is reported later."""
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(CONNECT_TIMEOUT)
        try:
            trial.connect(str(place.path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True

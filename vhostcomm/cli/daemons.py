"""The daemons that a verb asks: their guests and events, and the one that serves a guest."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field

from vhostcomm.cli.hosts import Listing, answers, daemons_of_guest, merged
from vhostcomm.cli.output import print_error
from vhostcomm.config.http_address import control_folders
from vhostcomm.errors import UsageError, VhostcommError
from vhostcomm.linux.starting import attempts, is_starting

if TYPE_CHECKING:
    from vhostcomm.control.client import Client


ASKED_AT_ONCE: Final = 16
"""Guests whose address is requested at the same time; the daemon has as many connections for several clients."""


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
    warnings: list[str] = field(factory=list, init=False)
    """What the daemons last said of their cluster."""
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
                [*pool.map(lambda each: answers(*each), unknown)]
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
        self.warnings.clear()
        if len(self.clients) == 1:
            return [self._listing(self.clients[0], self.clients[0].get("/guests"))], []
        listings, failed = [], []
        with ThreadPoolExecutor(len(self.clients)) as pool:
            for client, asked in [(each, pool.submit(each.get, "/guests")) for each in self.clients]:
                try:
                    listings.append(self._listing(client, asked.result()))
                except VhostcommError as error:
                    failed.append(error)
        return listings, failed

    def _listing(self, client: Client, found: dict[str, Any]) -> Listing:
        """Return the guests of a daemon, and note its warnings."""
        of = f"{client.where}: " if len(self.clients) > 1 else ""
        cluster = found.get("cluster") or {}
        self.warnings += [f"{of}{each}" for each in cluster.get("warnings", ())]
        return client, found["guests"]

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

        there = [(client, each) for client, found in listings for each in found]
        fitting = [(client, each) for client, each in there if name in (None, str(each["name"]))]
        if self.of_hosts:
            fitting = daemons_of_guest(fitting, complete=not failed)
        names = ", ".join(dict.fromkeys(str(each["name"]) for _, each in there))
        if failed and (name is None or not fitting):
            # A daemon that failed may serve the guest too, or may serve other guests.
            which = (
                f"whether it serves {name!r} is not known"
                if name
                else "name the guest, since it isn't known to be the only one"
            )
            raise ControlError(f"{'; '.join(map(str, failed))}; {which}")
        is_stranger = len(rest) > 1 and _is_command(rest[1]) and not _is_command(rest[0])
        if len(fitting) == 1 and (name or not is_stranger):
            client, guest = fitting[0]
            return client, str(guest["name"])
        if not there:
            raise _NoGuestError("no guest is served")
        if name is None and rest:
            raise _NoGuestError(f"there is no guest {rest[0]!r}; name one of {names}")
        if name is None:
            raise UsageError(f"name one of the guests: {names}")
        if not fitting:
            raise _NoGuestError(f"there is no guest {name!r}; guests: {names}")
        where = " and ".join(f"--control {client.where}" for client, _ in fitting)
        raise UsageError(f"several daemons serve a guest {name!r}: choose one with {where}")


def _is_command(word: str) -> bool:
    from vchannel import GuestCommand

    return word.isdigit() or word.upper().replace("-", "_") in GuestCommand.__members__


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

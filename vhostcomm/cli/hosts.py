"""The guests of several hosts: all may list the same guests, and each guest runs on one of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from vhostcomm.config.http_address import TLS
from vhostcomm.config.ssh_address import SCHEME
from vhostcomm.errors import VhostcommError

if TYPE_CHECKING:
    from vhostcomm.control.client import Client

Listing: TypeAlias = "tuple[Client, list[dict[str, Any]]]"
"""A daemon, and the guests that it lists."""

Listed: TypeAlias = "tuple[Client, dict[str, Any]]"
"""A daemon, and one of its guests."""

ANSWER_TIMEOUT: Final = 2.0
"""Seconds for a guest's answer; a guest that is up answers in milliseconds."""

_ABSENT: Final = "absent"
_READY: Final = "ready"


def merged(listings: Sequence[Listing]) -> list[dict[str, Any]]:
    """Return each guest once for every host where it is, or once without a host if it is absent everywhere."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for client, found in listings:
        for each in found:
            by_name.setdefault(str(each["name"]), []).append({"host": client.host, **each})
    return [
        guest
        for found in by_name.values()
        for guest in [each for each in found if each["state"] != _ABSENT] or [{**found[0], "host": None}]
    ]


def daemons_of_guest(fitting: list[Listed], *, complete: bool) -> list[Listed]:
    """Return the daemons to ask about a guest: those where it is ready, else connected, else the first that lists it.

    During a migration, both hosts are connected, and the guest has answered on one of them. The source of a migration is
    ready until a question is left unanswered. So of several daemons, those where the guest answers now; all if it
    answers nowhere. No clocks are compared.

    Args:
        fitting: daemons with their guests.
        complete: all daemons have answered. Otherwise, the guest may be on another host.
    """
    by_name = {str(guest["name"]): (client, guest) for client, guest in fitting}
    if len(by_name) > 1:
        return list(by_name.values())  # for an error that names the guests, each counts once
    ready = [(client, guest) for client, guest in fitting if guest["state"] == _READY]
    there = [(client, guest) for client, guest in fitting if guest["state"] != _ABSENT]
    having = ready or there or (fitting[:1] if complete else [])
    if len(having) < 2:
        return having
    with ThreadPoolExecutor(len(having)) as pool:
        answered = [*pool.map(lambda one: answers(one[0], str(one[1]["name"])), having)]
    return [each for each, does in zip(having, answered, strict=True) if does] or having


def answers(client: Client, name: str) -> bool:
    """Ask a guest for its information, which its daemon keeps. Return whether it answered."""
    body = {"command": "get_information", "timeout": ANSWER_TIMEOUT}  # harmless whenever it is executed
    try:
        client.post(client.guest(name, "call"), body, takes=ANSWER_TIMEOUT)
    except VhostcommError:
        return False
    return True


def split(text: str) -> list[str]:
    """Split the value of VHOSTCOMM_CONTROL. Several addresses are separated by blanks, which a single path may contain."""
    return text.split() if SCHEME in text or text.startswith(TLS) else [text]

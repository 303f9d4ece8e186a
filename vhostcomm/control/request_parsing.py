"""Parse requests: bodies, commands, times, text. Errors name the field."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final, cast

from starlette.requests import Request

from vchannel import Command, GuestCommand, MisuseError, encode_text
from vhostcomm.channel.calls import TIMEOUT_MAX, by_number
from vhostcomm.control.admission import peer_of
from vhostcomm.control.problems import Problem, bad_request
from vhostcomm.text import escape

CALL_TIMEOUT: Final = 10.0
"""Seconds for a guest's answer, by default."""

AGENT_SHOWN: Final = 60
"""Maximum characters of a client's own name for itself."""

SIZE_MAX: Final = 1 << 50
"""Bytes: more than any machine has."""

COMMAND_MAX: Final = 0x7FFF_FFFF
DIGITS: Final = len(str(COMMAND_MAX))


async def body(request: Request, known: Collection[str]) -> dict[str, Any]:
    """Parse a request's JSON object; empty without a body.

    Raises:
        Problem: it is not JSON, not an object, or has unknown members.
    """
    raw = await request.body()
    if not raw.strip():
        return {}
    try:
        value = json.loads(raw, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not JSON: {error}", "send a JSON object", 400) from None
    if not isinstance(value, dict):
        raise bad_request("the body is not a JSON object", f"its members can be: {', '.join(known) or 'none'}")
    if unknown := [key for key in value if key not in known]:
        raise bad_request(f"unknown: {', '.join(unknown)}", f"known: {', '.join(known) or 'none'}")
    return cast("dict[str, Any]", value)


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def seconds(body: dict[str, Any], name: str, default: float) -> float:
    """Parse a time in a body."""
    value = body.get(name, default)
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= TIMEOUT_MAX
    if not good:
        raise bad_request(f"{name} is {value!r}", "expected seconds, more than 0 and at most 3600")
    return float(value)


def size(body: dict[str, Any], name: str) -> int | None:
    """A number of bytes from a body; None if it is missing."""
    if name not in body:
        return None
    value = body[name]
    whole = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= SIZE_MAX
    if not whole or value != int(value):  # 5.0 is a whole number in JSON
        raise bad_request(f"{name} is {value!r}", "expected a whole number of bytes, more than 0")
    return int(value)


def flag(body: dict[str, Any], name: str) -> bool:
    """Parse a boolean in a body."""
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise bad_request(f"{name} is {value!r}", "expected true or false")
    return value


def command(value: object) -> Command:
    """Parse a command's name or number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON doesn't distinguish 5.0 from 5
    if type(value) is int and 0 <= value <= COMMAND_MAX:
        return by_number(value)
    if isinstance(value, str):
        if value.isascii() and value.isdigit() and len(value) <= DIGITS and int(value) <= COMMAND_MAX:
            return by_number(int(value))
        found = GuestCommand.__members__.get(value.upper().replace("-", "_"))
        if found is not None:  # TEST is 0
            return found
    names = ", ".join(name.lower() for name in GuestCommand.__members__)
    raise bad_request(f"command is {value!r:.100}", f"expected a number, or one of: {names}")


def text(value: object) -> bytes:
    """Encode text as a frame's data; empty without text."""
    if value is None:
        return b""
    if not isinstance(value, str):
        raise bad_request(f"data is {value!r:.60}", "expected text of at most 4031 bytes")
    try:
        return encode_text(value)
    except MisuseError as error:
        raise bad_request(f"data: {error}", "expected text of at most 4031 bytes, without a NUL") from None


def initiator(request: Request) -> str:
    """Describe the client: as the kernel reports it, and as it names itself."""
    who = peer_of(request.scope)
    agent = escape(request.headers.get("user-agent", ""), AGENT_SHOWN)
    surface = request.scope["state"].get("surface", "control")
    return f'{surface}: {who}, says it is "{agent}"' if agent else f"{surface}: {who}"


def check_dangerous(asked: Command, insisted: bool, allowed: bool) -> None:
    """Reject a command that can lose data, settings or a secret, unless both the client and the daemon allow it.

    Raises:
        Problem: at least one of them doesn't.
    """
    if not isinstance(asked, GuestCommand) or not asked.dangerous or (insisted and allowed):
        return
    missing = []
    if not allowed:
        missing.append("start the daemon with --allow-dangerous yes")
    if not insisted:
        missing.append('add --i-know-this-is-dangerous (over HTTP "i_know_this_is_dangerous": true)')
    raise Problem(
        403,
        "dangerous",
        f"{asked.name.lower()} ({asked.carries}) can lose data, settings or a secret",
        f"to send it anyway, {' and '.join(missing)}",
    )

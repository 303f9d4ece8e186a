"""Parse configured values, or explain why they are invalid.

Each parser accepts a string (from a flag or the environment) or a value from TOML, and raises `ValueError` with the
reason. The caller adds the value's place and an example. A `Kind` has the parser of a setting, and formats its values.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Any, Final

from attrs import frozen

from vchannel import NEVER, TEXT_SIZE

SERIAL_SIZE: Final = 13
TEXT_LIMIT: Final = TEXT_SIZE // 4
"""Maximum bytes of a text: one answer has several."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_GROUP_LIMIT: Final = 2**32 - 2
"""The greatest group id; for the kernel, the next number means none."""


def name(value: object) -> str:
    """Parse a guest's name, which is also used in file names, logs and metrics."""
    given = string(value)
    if not _NAME.fullmatch(given):
        raise ValueError("a name has 1 to 64 letters, digits, dots, dashes and underscores, and no dot in front")
    return given


def key(name: str) -> str:
    """Format a guest's name as a key of a file, such as in [guests.nas]; a dot would separate keys."""
    return f'"{name}"' if "." in name else name


def serial(value: object) -> str:
    """Parse a serial number; returned in upper case, as the guest receives it."""
    given = str(value) if type(value) is int else string(value)
    made = given.strip().upper()
    if len(made) != SERIAL_SIZE:
        raise ValueError(f"a serial number has {SERIAL_SIZE} letters and digits, this has {len(made)}")
    if not (made.isascii() and made.isalnum()):
        raise ValueError("a serial number has only letters and digits")
    return made


def mac(value: object) -> str:
    """Parse a MAC address in any common spelling; returned in lower case with colons."""
    given = string(value).strip().lower()
    digits = re.sub(r"(?<=[0-9a-f])[:.-](?=[0-9a-f])", "", given)
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        raise ValueError("a MAC address has six pairs of hexadecimal digits")
    return ":".join(digits[place : place + 2] for place in range(0, 12, 2))


def uuid_text(value: object) -> str:
    """Parse a UUID; returned in lower case with dashes."""
    try:
        return str(uuid.UUID(string(value).strip()))
    except ValueError:
        raise ValueError("a UUID has 32 hexadecimal digits, with dashes after the 8th, 12th, 16th and 20th") from None


def uuid_of(given: str) -> str:
    """Return the UUID that a name is, or ""."""
    try:
        return uuid_text(given)
    except ValueError:
        return ""


def text(value: object) -> str:
    """Parse a text that goes into a frame unchanged."""
    given = string(value)
    if not given.isprintable():
        raise ValueError("it contains an unprintable character")
    if len(given.encode()) > TEXT_LIMIT:
        raise ValueError(f"{len(given.encode())} bytes are more than fit into an answer ({TEXT_LIMIT})")
    return given


def whole_number(value: object, least: int, most: int) -> int:
    """Parse a whole number within bounds."""
    if type(value) is int:
        made = value
    elif isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value.strip()):
        made = int(value)
    else:
        raise ValueError("not a whole number")
    if not least <= made <= most:
        raise ValueError(f"it must be {least} to {most}")
    return made


def seconds(value: object) -> float:
    """Parse a positive time in seconds."""
    try:
        made = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):  # the latter for an integer with hundreds of digits
        made = None
    if made is None or not 0 < made < 1e6:
        raise ValueError("not a time in seconds, more than 0 and less than a million")
    return made


def deadline(value: object) -> int:
    """Parse an update deadline: `never`, an ISO date or time (UTC unless it says otherwise), or seconds since 1970."""
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, date):
        return int(datetime.combine(value, time(), UTC).timestamp())
    if type(value) is not int:
        given = string(value).strip()
        if given.lower() == "never":
            return NEVER
        if not re.fullmatch(r"-?[0-9]+", given) or re.fullmatch(r"[0-9]{8}", given):
            try:
                return deadline(datetime.fromisoformat(given))
            except ValueError:
                raise ValueError("neither never, nor an ISO date, nor seconds since 1970") from None
        value = given
    return whole_number(value, -NEVER - 1, NEVER)


def mode(value: object) -> int:
    """Parse an octal file mode, and reject one without access for the owner."""
    given = f"{value:o}" if type(value) is int else string(value).strip().removeprefix("0o")
    if not re.fullmatch(r"0?[0-7]{3}", given):
        raise ValueError("not a file mode of three octal digits")
    made = int(given, 8)
    if made & 0o600 != 0o600:
        raise ValueError("the owner needs to read and write")
    return made


_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def size(value: object) -> int:
    """Parse a number of bytes, with k, M, G or T for powers of 1024."""
    given = str(value) if type(value) is int else string(value).strip()
    match = re.fullmatch(r"([0-9]{1,15})\s*([kmgt]?)i?b?", given, re.IGNORECASE)
    if not match or int(match[1]) == 0:
        raise ValueError("a size is a whole number, at least 1, with an optional k, M, G or T")
    return int(match[1]) * _UNITS[match[2].lower()]


def memory(value: object) -> int:
    """Parse a machine's memory, in MiB as for QEMU unless it has a unit; returned in bytes."""
    given = str(value) if type(value) is int else string(value).strip()
    return size(f"{given}M" if given.isdigit() else given)


def boolean(value: object) -> bool:
    """Parse yes or no."""
    if isinstance(value, bool):
        return value
    given = value.strip().lower() if isinstance(value, str) else ""
    if given not in _YES | _NO:
        raise ValueError("it must be yes or no")
    return given in _YES


_YES: Final = {"yes", "true", "on", "1"}
_NO: Final = {"no", "false", "off", "0"}


def token(value: object) -> str:
    """Parse a secret for an HTTP header."""
    given = string(value)
    if not re.fullmatch(r"[!-~]{16,256}", given):
        raise ValueError("a token is 16 to 256 printable characters without spaces")
    return given


def path(value: object) -> str:
    """Parse a path, and reject one with a NUL."""
    given = string(value)
    if "\0" in given:
        raise ValueError("a path can't contain a NUL")
    return given


def strings(value: object) -> tuple[str, ...]:
    """Parse a list of texts."""
    if not isinstance(value, list):
        raise ValueError("it must be a list of texts in quotes")  # noqa: TRY004 - a mistake in a value, not in a program
    return tuple(map(string, value))


def paths(value: object) -> tuple[str, ...]:
    """Parse a list of paths."""
    return tuple(map(path, strings(value)))


def group(value: object) -> str:
    """Parse a group: its name, or its number in decimal."""
    given = str(value) if type(value) is int else string(value).strip()
    if re.fullmatch(r"-?[0-9]+", given):
        if len(given) > len(str(_GROUP_LIMIT)) or not 0 <= int(given) <= _GROUP_LIMIT:
            raise ValueError(f"a group's number is 0 to {_GROUP_LIMIT}")
        return str(int(given))
    if not given.isprintable() or ":" in given or given.isdigit() or not given:
        raise ValueError("neither a group's name nor its number")
    return given


def string(value: object) -> str:
    """Parse any text that isn't empty."""
    if not isinstance(value, str):
        raise ValueError("it must be text in quotes")  # noqa: TRY004 - a mistake in a value, not in a program
    if not value:
        raise ValueError("it is empty")
    return value


@frozen
class Kind:
    """A kind of value: its placeholder in help (`--flag WORD`), a description (Markdown), its parser and its format."""

    word: str
    words: str
    parse: Callable[[object], Any]
    show: Callable[[Any], str] = str
    """The text that an operator would write in a flag or the environment."""
    choices: tuple[str, ...] = ()

    def toml(self, value: Any) -> str:
        """Format the value for a TOML file."""
        if isinstance(value, str | bool | tuple):
            return json.dumps(value)
        shown = self.show(value)
        return shown if shown in {str(value), f"{value:g}"} else json.dumps(shown)


def number(least: int, most: int) -> Kind:
    """Make the kind of whole numbers within bounds."""
    return Kind("N", f"a whole number, {least} to {most}", lambda value: whole_number(value, least, most))


def choice(*allowed: str) -> Kind:
    """Make the kind of one word out of several."""

    def parse(value: object) -> str:
        given = string(value).strip().lower()
        if given not in allowed:
            raise ValueError(f"it must be one of {', '.join(allowed)}")
        return given

    *others, last = (f"`{each}`" for each in allowed)
    return Kind("|".join(allowed), f"{', '.join(others)} or {last}", parse, choices=allowed)


def _size_text(value: int) -> str:
    unit = next((unit for unit in "TGMk" if value and value % _UNITS[unit.lower()] == 0), "")
    return f"{value // _UNITS[unit.lower()]}{unit}"


SERIAL: Final = Kind("SERIAL", f"{SERIAL_SIZE} letters and digits; sent in upper case", serial)
MAC: Final = Kind("MAC", "six pairs of hexadecimal digits; sent in lower case with colons", mac)
UUID: Final = Kind("UUID", "32 hexadecimal digits, with or without dashes; sent in lower case with dashes", uuid_text)
TEXT: Final = Kind("TEXT", f"printable text, up to {TEXT_LIMIT} bytes", text)
SECONDS: Final = Kind("SECONDS", "seconds, more than 0; fractions are allowed", seconds, lambda value: f"{value:g}")
DEADLINE: Final = Kind(
    "WHEN",
    "`never`, an ISO date or time (UTC unless it says otherwise), or seconds since 1970",
    deadline,
    lambda value: "never" if value == NEVER else str(value),
)
MODE: Final = Kind("MODE", "three octal digits; the owner needs to read and write", mode, lambda value: f"{value:04o}")
GROUP: Final = Kind("GROUP", "a group's name or its number", group)
PATH: Final = Kind("PATH", "a path", path)
STRING: Final = Kind("TEXT", "text", string)
STRINGS: Final = Kind("TEXTS", "a list of texts", strings, ", ".join)
PATHS: Final = Kind("PATHS", "a list of paths", paths, ", ".join)
SIZE: Final = Kind("SIZE", "bytes; k, M, G and T are powers of 1024", size, _size_text)
MEMORY: Final = Kind("SIZE", "MiB; k, M, G and T are powers of 1024 bytes", memory, _size_text)
BOOLEAN: Final = Kind(
    "YES|NO",
    "yes or no (true, on, 1; false, off, 0)",
    boolean,
    lambda value: "yes" if value else "no",
    choices=("yes", "no"),
)
TOKEN: Final = Kind("TOKEN", "16 to 256 printable characters without spaces", token)
"""A secret: its value is never shown."""

"""Parse flags as Go programs do: -x=v, -x v, --x=v, -x."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from vhostcomm.errors import UsageError

_TRUE: Final = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE: Final = {"0", "f", "F", "false", "FALSE", "False"}


@frozen
class Flag:
    """One flag: the parser of its value (raises `ValueError` with the reason), its help and its default.

    `alone` is the key to set if the flag is the last word and has no value; if it is empty, that is an error.
    """

    parse: Callable[[str], Any]
    help: str
    default: str = ""
    group: str = ""
    alone: str = ""


def parse(words: Sequence[str], flags: Mapping[str, Flag]) -> tuple[dict[str, Any], list[str]]:
    """Parse a command line. Return the values of the flags, and the words after the flags.

    Raises:
        UsageError: an unknown flag, or a missing or invalid value.
    """
    given: dict[str, Any] = {}
    left = deque(words)
    while left and len(left[0]) > 1 and left[0][0] == "-":
        word = left.popleft()
        if word == "--":
            break
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        flag = flags.get(name)
        if flag is None:
            raise UsageError(f"unknown flag {word.partition('=')[0]}; -help lists the flags")
        if not equals:
            if flag.parse is boolean:
                value = "true"
            elif left:
                value = left.popleft()
            elif flag.alone:
                given[flag.alone] = True
                break
            else:
                raise UsageError(f"{word} needs a value: {word}=VALUE")
        try:
            given[name] = flag.parse(value)
        except ValueError as error:
            raise UsageError(f"-{name} is {value!a}: {error}") from None
    return given, list(left)


def boolean(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise ValueError("expected true or false")
    return text in _TRUE


def integer(text: str) -> int:
    """Parse an integer of 64 bits as Go writes it: decimal, 0x…, 0o… or 0…, 0b…."""
    octal = re.fullmatch(r"([+-]?)0([0-7]+)", text)
    try:
        value = int(f"{octal[1]}0o{octal[2]}" if octal else text, 0)
    except ValueError:
        raise ValueError("not a whole number") from None
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError("more than 64 bits")
    return value

"""How a setting's value is written: a word for it in help, its format in words, and its default. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
from attrs import frozen

from vhostcomm.config import address, values


@frozen
class Format:
    """A word that stands for a value (`--flag WORD`), and what such a value is."""

    word: str
    words: str


_FORMATS: Final[dict[Callable[..., Any], Format]] = {
    values.serial: Format("SERIAL", f"{values.SERIAL_SIZE} letters and digits; told in upper case"),
    values.mac: Format("MAC", "six pairs of hexadecimal digits; told in lower case with colons"),
    values.uuid_text: Format("UUID", "32 hexadecimal digits, with or without dashes; told in lower case with dashes"),
    values.text: Format("TEXT", f"text that can be printed, up to {values.TEXT_LIMIT} bytes"),
    values.seconds: Format("SECONDS", "seconds, more than 0; fractions are fine"),
    values.deadline: Format(
        "WHEN", "`never`, an ISO date or time (UTC unless it says otherwise), or seconds since 1970"
    ),
    values.mode: Format("MODE", "three octal digits; the owner needs to read and write"),
    values.group: Format("GROUP", "a group's name or its number"),
    values.path: Format("PATH", "a path"),
    values.string: Format("TEXT", "text"),
    values.strings: Format("TEXTS", "a list of texts"),
    values.paths: Format("PATHS", "a list of paths"),
    values.size: Format("SIZE", "bytes; k, M, G and T are powers of 1024"),
    values.boolean: Format("YES|NO", "yes or no (true, on, 1; false, off, 0)"),
    values.token: Format("TOKEN", "16 to 256 printable characters without spaces"),
    address.api: Format("ADDRESS", "HOST:PORT, `tcp:HOST:PORT`, `unix:/PATH` or `/PATH`"),
    address.control: Format("ADDRESS", "a path, `tcp:HOST:PORT` or `none`"),
}


def format_of(setting: attrs.Attribute[Any]) -> Format:
    """How a setting of the configuration's models is written.

    Raises:
        KeyError: its parser is not known here; a test finds that.
    """
    parse = setting.metadata["parse"]
    match parse:
        case values.Number():
            found = Format("N", f"a whole number, {parse.least} to {parse.most}")
        case values.Choice():
            *others, last = (f"`{each}`" for each in parse.allowed)
            found = Format("|".join(parse.allowed), f"{', '.join(others)} or {last}")
        case _:
            found = _FORMATS[parse]
    return attrs.evolve(found, word=setting.metadata["metavar"] or found.word)


def default_text(setting: attrs.Attribute[Any]) -> str:
    """A setting's default as an operator would write it; "" where there is none."""
    match setting.name, setting.default:
        case "socket_mode", mode:
            return f"{mode:04o}"
        case "update_deadline", _:
            return "never"
        case "record_limit", int() as size:
            return f"{size >> 20}M"
        case _, bool() as given:
            return "yes" if given else "no"
        case _, float() as seconds:
            return f"{seconds:g}"
        case _, None:
            return ""
        case _, other:
            return str(other)

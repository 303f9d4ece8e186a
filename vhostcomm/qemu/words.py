"""How QEMU's arguments are put together: ``first,key=value,…``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def chardev(backend: str, name: str, settings: Mapping[str, str]) -> tuple[str, str]:
    """The arguments of a chardev. `name` is its id."""
    return "-chardev", options(backend, {"id": name} | dict(settings))


def options(first: str, rest: Mapping[str, str] | Sequence[tuple[str, str]]) -> str:
    """``first,key=value,…``; a comma in a value is doubled, which is all that QEMU wants escaped."""
    pairs = rest.items() if isinstance(rest, Mapping) else rest
    words = [f"{key}={value.replace(',', ',,')}" for key, value in pairs]
    return ",".join([first, *words] if first else words)

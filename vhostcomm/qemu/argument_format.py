"""Format QEMU's arguments: ``first,key=value,…``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def chardev(backend: str, name: str, settings: Mapping[str, str]) -> tuple[str, str]:
    """Build the arguments for a chardev. `name` is its id."""
    return "-chardev", options(backend, {"id": name} | dict(settings))


def options(first: str, rest: Mapping[str, str] | Sequence[tuple[str, str]]) -> str:
    """Format ``first,key=value,…``. A comma in a value is doubled; QEMU needs no other escapes."""
    pairs = rest.items() if isinstance(rest, Mapping) else rest
    words = [f"{key}={value.replace(',', ',,')}" for key, value in pairs]
    return ",".join([first, *words] if first else words)

"""Every verb of the command line, and every group of verbs."""

from __future__ import annotations

from collections.abc import Iterator

from cyclopts import App

from vhostcomm.cli.app import app
from vhostcomm.cli.help import verbs_of


def all_verbs(of: App = app, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each verb: () for the command line itself, then `("config",)`, `("config", "show")` and so on."""
    yield words
    for name in verbs_of(of):
        yield from all_verbs(of[name], (*words, name))

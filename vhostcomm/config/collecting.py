"""Collect the mistakes of a configuration, so that one attempt shows all of them. Pure."""

from __future__ import annotations

from types import TracebackType
from typing import Final

from vhostcomm.errors import ConfigError

KEPT: Final = 1_000
"""Maximum mistakes to keep. Further ones are only counted: 10,000 guests may all have several."""


class Mistakes:
    """The mistakes found so far.

    As a context manager, it notes the mistake that ends the block, and the code after the block runs.
    """

    def __init__(self) -> None:
        self._found: dict[str, None] = {}
        self._more = 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if not isinstance(error, ConfigError):
            return False
        self.add(*error.reasons)
        self._more += error.more
        return True

    def add(self, *mistakes: str) -> None:
        """Note mistakes."""
        for each in mistakes:
            if len(self._found) < KEPT:
                self._found[each] = None
            elif each not in self._found:
                self._more += 1

    def check(self) -> None:
        """Raise the mistakes.

        Raises:
            ConfigError: there are some; has each one once, in the order in which they were found.
        """
        if self._found:
            raise ConfigError(*self._found, more=self._more)

"""Collect the mistakes of a configuration, so that one attempt shows all of them. Pure."""

from __future__ import annotations

from types import TracebackType

from vhostcomm.errors import ConfigError


class Mistakes:
    """The mistakes found so far.

    As a context manager, it notes the mistake that ends the block, and the code after the block runs.
    """

    def __init__(self) -> None:
        self._found: dict[str, None] = {}

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if not isinstance(error, ConfigError):
            return False
        self.add(*error.mistakes)
        return True

    def add(self, *mistakes: str) -> None:
        """Note mistakes."""
        self._found |= dict.fromkeys(mistakes)

    def check(self) -> None:
        """Raise the mistakes.

        Raises:
            ConfigError: there are some; has each one once, in the order in which they were found.
        """
        if self._found:
            raise ConfigError(*self._found)

"""Everything that is made from the program, by its file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tools.commands import commands
from tools.man import pages
from tools.settings import configuration

ROOT: Final = Path(__file__).parents[1]
MAN: Final = ROOT / "docs" / "man"
"""As it goes below share/, in man1 and man5."""


def made() -> dict[Path, str]:
    return {
        ROOT / "docs" / "commands.md": commands(),
        ROOT / "docs" / "configuration.md": configuration(),
        **{MAN / f"man{name[-1]}" / name: text for name, text in pages().items()},
    }

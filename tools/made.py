"""Pages with a part that is generated from the program; the rest is written by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tools.commands import commands
from tools.settings import configuration

ROOT: Final = Path(__file__).parents[1]
_PART: Final = re.compile(
    r"(<!-- `make docs` generates this page from here … -->\n).*(<!-- … to here. -->\n)", re.DOTALL
)


PAGES: Final = {ROOT / "docs" / "commands.md": commands, ROOT / "docs" / "configuration.md": configuration}
"""By path, what generates the part."""


def made(path: Path) -> str:
    """Return the text of a page."""
    part = PAGES[path]().strip()
    return _PART.sub(lambda found: f"{found[1]}\n{part}\n\n{found[2]}", path.read_text())

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A place for an image."""
    return tmp_path / "sys.img"

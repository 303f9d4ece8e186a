"""What every test may ask for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder of its own with a short path, for sockets with long names: 107 bytes is all there is."""
    with tempfile.TemporaryDirectory(prefix="v") as made:
        yield Path(made)

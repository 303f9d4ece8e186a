"""A short time of `make soak`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.soak import soak

ROOM: Final = 4096
"""Kilobytes that memory may grow by, for what allocators keep. The number of frames doesn't matter."""


@pytest.mark.slow
def test_soak(short_path: Path) -> None:
    soaked = soak(20_000, short_path)
    assert soaked.frames >= 20_000
    assert soaked.answers > soaked.frames / 2
    for early, late in soaked.resident:
        assert late - early < ROOM

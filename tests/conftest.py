"""What every test may ask for."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Ignored where the tests run under nohup or behind a shell's &, and then the programs they start would ignore them too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder of its own with a short path, for sockets with long names: 107 bytes is all there is."""
    with tempfile.TemporaryDirectory(prefix="v") as made:
        yield Path(made)

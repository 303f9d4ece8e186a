"""The stand-in guest, for the pages that boot one."""

from __future__ import annotations

from tests.e2e.conftest import images

__all__ = ["images"]

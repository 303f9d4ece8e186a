"""The environment that programs inherit from us."""

from __future__ import annotations

import os
from typing import Final

SECRET_VARIABLES: Final = frozenset({"VHOSTCOMM_CONTROL_TOKEN"})
"""Variables of ours with secret values; settings of the kind `vhostcomm.config.values.TOKEN`."""


def child_environment(**added: str) -> dict[str, str]:
    """Our own environment for a child: without our secrets, with what is added."""
    return {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES} | added

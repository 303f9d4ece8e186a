"""The environment of the programs that vhostcomm starts."""

from __future__ import annotations

import os
from typing import Final

SECRET_VARIABLES: Final = frozenset({"VHOSTCOMM_CONTROL_TOKEN", "VHOSTCOMM_CLUSTER_PASSWORD"})
"""Environment variables with secret values: the settings of the kind `vhostcomm.config.values.TOKEN`, and etcd's password."""


def child_environment(**added: str) -> dict[str, str]:
    """Return our environment for a child: without our secrets, plus the given variables."""
    return {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES} | added

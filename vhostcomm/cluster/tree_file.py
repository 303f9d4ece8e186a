"""The last accepted tree on this host's disk, for a start without etcd."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from vhostcomm.cluster.tree import Tree, format_tree, parse_tree
from vhostcomm.config.reading import content
from vhostcomm.errors import ConfigError, VhostcommError
from vhostcomm.linux.private_files import replace_private

NAME: Final = "cluster.tree"


class TreeFileError(VhostcommError):
    """A tree can't be written to its file or read from it."""


def state_directory(environment: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """Return where state is kept: systemd's state directory, or the usual one of root or of this user."""
    if state := environment.get("STATE_DIRECTORY"):
        return Path(state.partition(":")[0])
    if (os.geteuid() if uid is None else uid) == 0:
        return Path("/var/lib/vhostcomm")
    base = environment.get("XDG_STATE_HOME") or f"{environment.get('HOME') or '/nonexistent'}/.local/state"
    return Path(base) / "vhostcomm"


@frozen
class TreeFile:
    """A tree's file. A file of a tree with another prefix is not used."""

    prefix: str
    path: Path

    def read(self) -> Tree:
        """Return the tree; an empty one if there is no file.

        Raises:
            TreeFileError: it can't be used.
        """
        try:
            return parse_tree(content(self.path), self.prefix)
        except (FileNotFoundError, NotADirectoryError):
            return Tree()
        except (OSError, ValueError, ConfigError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{self.path}: ")
            raise TreeFileError(f"{self.path}: {why}; delete the file") from None

    def write(self, tree: Tree) -> None:
        """Replace the file, at once and only for our own user. It may block.

        Raises:
            TreeFileError: it can't be written.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_private(self.path, format_tree(tree, self.prefix), durable=True, shared=True)
        except OSError as error:
            raise TreeFileError(f"{self.path}: {error.strerror}") from None

"""The last accepted tree on this host's disk, for a start without etcd.

The file has a line of JSON for each key, so that no step of writing or reading takes long.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from vhostcomm.cluster.tree import Tree
from vhostcomm.config.reading import content
from vhostcomm.errors import ConfigError, VhostcommError
from vhostcomm.linux.private_files import replace_private
from vhostcomm.text import escape

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
            head, *rows = map(json.loads, content(self.path).splitlines())
            values = {str(each["key"]): str(each["value"]).encode() for each in rows}
            prefix, revision = head["prefix"], int(head["revision"])
        except (FileNotFoundError, NotADirectoryError):
            return Tree()
        except (OSError, ConfigError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{self.path}: ")
        except (ValueError, TypeError, KeyError, RecursionError):
            why = "it is not the record of a tree"
        else:
            if prefix == self.prefix:
                return Tree(values, revision)
            why = f"it belongs to the prefix {escape(str(prefix))}, not {self.prefix}"
        raise TreeFileError(f"{self.path}: {why}; delete the file")

    def write(self, tree: Tree) -> None:
        """Replace the file, at once and only for our own user. It may block.

        Raises:
            TreeFileError: it can't be written.
        """
        head = {"prefix": self.prefix, "revision": tree.revision}
        rows = [{"key": key, "value": value.decode()} for key, value in tree.values.items()]
        lines = [json.dumps(each).encode() + b"\n" for each in (head, *rows)]
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_private(self.path, lines, durable=True, shared=True)
        except OSError as error:
            raise TreeFileError(f"{self.path}: {error.strerror}") from None

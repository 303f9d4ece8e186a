"""Read the files of a configuration, and merge them: a later file overrides an earlier one, key by key.

Pure, except for reading them.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from vhostcomm.config import values
from vhostcomm.config.address import check_path, example_socket, parse_sock
from vhostcomm.config.collecting import Mistakes
from vhostcomm.config.machine import beside
from vhostcomm.config.models import SECTIONS, Value, several
from vhostcomm.config.reading import content, parsed, quoted, read_error, read_file, section_of, table_of
from vhostcomm.errors import ConfigError

SUFFIX: Final = ".toml"
"""A directory's files are those with this suffix; hidden ones are temporary files of editors and copying tools."""


@define
class Listed:
    """A guest in the files.

    Args:
        name: its name.
        where: the section that mentions it first, for errors.
        identity: the settings of its identity.
        sock: its parsed address; None without one, a value of None for an invalid one.
        qmp: the path of its QEMU's QMP socket.
        machine: the settings of its machine, with disk paths relative to no file.
    """

    name: str
    where: str
    identity: dict[str, Value] = field(factory=dict)
    sock: Value | None = None
    qmp: Value | None = None
    machine: dict[str, Value] = field(factory=dict)


@define
class Merged:
    """All files together: settings by section, the watched directories as the last file has them, and the guests."""

    sections: dict[str, dict[str, Value]] = field(factory=lambda: {section: {} for section in SECTIONS})
    watch: Value | None = None
    guests: dict[str, Listed] = field(factory=dict)


def list_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files: those given, and for a directory its ``*.toml`` files in the order of their names.

    Raises:
        ConfigError: a directory can't be read, or has no such file.
    """
    found: list[Path] = []
    for path in paths:
        try:
            if path.is_dir():
                found += _in_folder(path)
            else:
                found.append(path)
        except OSError as error:
            raise read_error(path, error) from None
    return found


def _in_folder(folder: Path) -> list[Path]:
    names = sorted(each.name for each in folder.iterdir() if each.suffix == SUFFIX and not each.name.startswith("."))
    if not names:
        # An empty directory is what a file system that isn't mounted looks like.
        raise ConfigError(
            f"{folder}: a directory without a *{SUFFIX} file; check that its file system is mounted, "
            f"or create one: vhostcomm config init {shlex.quote(f'{folder}/vhostcomm{SUFFIX}')}"
        )
    return [folder / each for each in names]


def fingerprint(paths: Sequence[Path]) -> str:
    """Return a text that differs if the names or contents of the files differ, or why they can't be read."""
    digest = hashlib.blake2b()
    try:
        for file in list_files(paths):
            try:
                found = content(file)
            except OSError as error:
                raise read_error(file, error) from None
            digest.update(b"%b\0%d\0%b" % (os.fsencode(file), len(found), found))
    except ConfigError as error:
        return str(error)
    return digest.hexdigest()


def merge(
    paths: Sequence[Path],
    environment: Mapping[str, str],
    mistakes: Mistakes,
    only: str | None = None,
    under: Merged | None = None,
) -> Merged:
    """Read the files and merge them.

    Args:
        paths: files and directories; see `list_files`.
        environment: has the runtime directory.
        mistakes: collects those of all files: files that can't be read, and what is invalid in the others.
        only: leave out all guests but the one with this name.
        under: settings that the files override, key by key. It is changed.
    """
    merged = under or Merged()
    for path in paths:
        with mistakes:
            for file in list_files([path]):
                # One that was deleted after the listing is an error too: so are all of a directory that is unmounted meanwhile.
                with mistakes:
                    _add(merged, read_file(file), file, environment, mistakes, only)
    return merged


def _add(
    merged: Merged,
    document: dict[str, Any],
    file: Path,
    environment: Mapping[str, str],
    mistakes: Mistakes,
    only: str | None,
) -> None:
    label = str(file)
    for section in SECTIONS:
        extra = ("watch",) if section == "serve" else ()
        found = section_of(document.pop(section, {}), section, label, mistakes, extra)
        merged.watch = found.pop("watch", merged.watch)
        merged.sections[section] |= found
    guests = document.pop("guests", {})
    if document:
        mistakes.add(f"{label}: unknown: {several([*map(quoted, document)])}; known: host, guest, guests and serve")
    for name, table in table_of(guests, "guests", label).items():
        if only in (None, name):
            where = f"guests.{values.key(name)}"
            listed = Listed(name, f"{label}: {where}")
            with mistakes:
                parsed(values.name, name, f"{label}: the name of [{where}]", "[guests.nas]")
                listed = merged.guests.setdefault(name, listed)
            _add_guest(listed, table, file, environment, mistakes)


def _add_guest(listed: Listed, table: object, file: Path, environment: Mapping[str, str], mistakes: Mistakes) -> None:
    where, label = f"guests.{values.key(listed.name)}", str(file)
    layer = section_of(table, "guest", label, mistakes, ("sock", "qmp", "machine"), where=where)
    if sock := layer.pop("sock", None):
        example = example_sock(listed.name, sock.value, environment)
        listed.sock = Value(None, sock.source)
        with mistakes:
            listed.sock = Value(
                parsed(parse_sock, sock.value, sock.source, f'sock = "{example}"', environment), sock.source
            )
    if qmp := layer.pop("qmp", None):
        example = f'qmp = "/run/qemu/{listed.name}.qmp"'
        with mistakes:
            listed.qmp = Value(parsed(_socket_path, qmp.value, qmp.source, example), qmp.source)
    if machine := layer.pop("machine", None):
        folder = file.absolute().parent
        listed.machine |= {
            key: Value(beside(folder, key, each.value), each.source)
            for key, each in section_of(machine.value, "machine", label, mistakes, where=f"{where}.machine").items()
        }
    listed.identity |= layer


def example_sock(name: str, invalid: object, environment: Mapping[str, str]) -> str:
    """Return a guest's address as an example, of the kind that an invalid one was meant for."""
    is_tcp = isinstance(invalid, str) and "tcp:" in invalid
    return "tcp:127.0.0.1:12345" if is_tcp else str(example_socket(name, environment))


def _socket_path(raw: object) -> str:
    path = Path(values.path(raw))
    if not path.is_absolute():
        raise ValueError("expected the absolute path of a unix socket")
    check_path(path)
    return str(path)

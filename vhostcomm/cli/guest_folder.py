"""Find the configuration of a command's guest: in a directory that `install` made, in a file, or in flags alone."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs

from vhostcomm.cli.flags import parsed
from vhostcomm.config.address import parse_sock, runtime_directory
from vhostcomm.config.load import load
from vhostcomm.config.machine import CONFIGURATION
from vhostcomm.config.models import Config, several
from vhostcomm.errors import ConfigError, UsageError
from vhostcomm.linux.system_errors import temporary_folder


def files_of(folder: str | None, config: list[Path] | None, *, remark: str = "") -> list[Path] | None:
    """Return the configuration's files: the directory's if a directory is given, else those of --config.

    Args:
        folder: made by `install`.
        config: of --config.
        remark: another possible meaning of the word, for the error.

    Raises:
        UsageError: both are given.
        ConfigError: the directory has no such file.
    """
    if folder is None:
        return config
    if config:
        raise UsageError(f"{folder} and --config: the directory has its own file; give only one of them")
    file = Path(folder, CONFIGURATION)
    if not file.is_file():
        raise ConfigError(
            f"{folder}: no directory with a {CONFIGURATION}; `vhostcomm install PAT {shlex.quote(folder)}` makes one{remark}"
        )
    return [file]


def shown(config: Sequence[Path]) -> str:
    """Return the paths of --config for a sentence."""
    return several(list(map(str, config))) or "the configuration"


@contextmanager
def configured(
    config: list[Path] | None, name: str | None, sock: str | None, flags: dict[str, object]
) -> Iterator[Config]:
    """Provide the configuration of one guest: by name in the files, their only guest, or from flags alone."""
    environment: Mapping[str, str] = os.environ
    with ExitStack() as stack:
        try:
            runtime_directory()
        except ValueError:  # a user without a session
            made = stack.enter_context(TemporaryDirectory(prefix="vhostcomm-", dir=temporary_folder()))
            environment = os.environ | {"RUNTIME_DIRECTORY": made}
        listed = [each.name for each in load(config, environment=environment).guests] if config else []
        if name is None and len(listed) == 1:
            name = listed[0]
        if listed and name not in listed:
            which = f"no guest {name!r}; guests:" if name else "choose a guest with --guest:"
            raise ConfigError(f"{shown(config or ())}: {which} {several(listed)}")
        if listed:
            loaded = load(config, flags=flags, only=name, environment=environment)
            if sock is not None:
                named = "" if "=" in sock else f"{name}="
                where = parsed(lambda text: parse_sock(named + text), "--sock", sock).address
                loaded = attrs.evolve(loaded, guests=(attrs.evolve(loaded.guests[0], address=where),))
        else:
            name = name or "vdsm"
            where_text = f"{name}={runtime_directory(environment)}/{name}" if sock is None else sock
            where_text = where_text if "=" in where_text else f"{name}={where_text}"
            loaded = load(config, socks=[where_text], flags=flags, environment=environment)
        yield attrs.evolve(loaded, watch=())

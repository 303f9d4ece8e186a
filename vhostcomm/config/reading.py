"""Read settings: from a TOML file's sections, from the environment, from flags. Pure, except for reading the file."""

from __future__ import annotations

import difflib
import grp
import os
import re
import shlex
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

import attrs

from vhostcomm.config import values
from vhostcomm.config.address import own_example
from vhostcomm.config.collecting import Mistakes
from vhostcomm.config.identity import example_toml, flag_of
from vhostcomm.config.machine import MachineSettings
from vhostcomm.config.models import SECTIONS, Value, settings
from vhostcomm.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "VHOSTCOMM_"

Flags = Mapping[str, object]
"""Values of flags by the flag's name without its leading dashes. Flags that weren't given are missing."""


def read_file(file: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: it can't be read, or is not TOML.
    """
    text = ""
    try:
        text = content(file).decode()
        return tomllib.loads(text)
    except OSError as error:
        raise read_error(file, error) from None
    except RecursionError:
        raise ConfigError(f"{file}: TOML with lists or tables that are nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not TOML: byte {error.start} is not UTF-8; is it the right file?") from None
    except ValueError as error:  # TOML's errors, and numbers with thousands of digits
        why = str(error).partition(";")[0]
        place = re.search(r"at line ([0-9]+)", why)
        line = text.split("\n")[int(place[1]) - 1] if place else ""
        key = re.match(r"\s*(\[.*\]|[\w.\"'-]+(?=\s*=))", line)  # without its value, which may be a secret
        raise ConfigError(f"{file}: not TOML: {why}{f', in {key[1]}' if key else ''}") from None


def content(file: Path) -> bytes:
    """Read a regular file. Never opens anything that could block or has no end.

    Raises:
        OSError: it can't be read.
        ConfigError: it is no regular file, or too large.
    """
    _check_regular(file, file.stat())
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as opened:
        _check_regular(file, os.fstat(fd))  # the path may now name another file
        return opened.read(SIZE_LIMIT)


def _check_regular(file: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise ConfigError(f"{file}: {kind}, but the configuration must be a regular file; give the path of one")
    if found.st_size > SIZE_LIMIT:
        raise ConfigError(
            f"{file}: {found.st_size} bytes, but a configuration has at most {SIZE_LIMIT}; is it the right file?"
        )


SIZE_LIMIT: Final = 16 << 20
"""Maximum bytes of a configuration file: 10,000 guests with every setting need less."""

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def read_error(path: Path, error: OSError) -> ConfigError:
    """Explain why a file or directory of the configuration can't be read, and what to do."""
    remedy = ""
    if isinstance(error, FileNotFoundError):
        folder = "" if path.parent.is_dir() else f"mkdir -p {shlex.quote(str(path.parent))} && "
        remedy = f"; create one: {folder}vhostcomm config init {shlex.quote(str(path))}"
    elif isinstance(error, PermissionError):
        remedy = f"; uid {os.geteuid()} must be able to read it: {_letting_in(path)}"
    return ConfigError(f"{path}: {error.strerror}{remedy}")


def _letting_in(path: Path) -> str:
    """Say how this process gets access to a file or directory: as a member of its group, or as everybody."""
    closed = (each for each in reversed(path.parents) if not os.access(each, os.X_OK, effective_ids=True))
    bits, needed = "r", stat.S_IRGRP
    if folder := next(closed, None):
        path, bits, needed = folder, "x", stat.S_IXGRP
    with suppress(OSError, KeyError):
        found = path.stat()
        if not folder and stat.S_ISDIR(found.st_mode):
            bits = "rx"
        if found.st_mode & needed and found.st_gid:
            group = grp.getgrgid(found.st_gid).gr_name
            return f"add it to the group {group}; under systemd, SupplementaryGroups={group} in the unit"
    return f"chmod a+{bits} {shlex.quote(str(path))}, and keep secrets in the environment"


def table_of(value: object, where: str, label: str) -> dict[str, Any]:
    """Check that a value is a section.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{label}: {where} is {quoted(value)}; expected a section; for example: [{where}]")
    return cast("dict[str, Any]", value)


def section_of(
    value: object, section: str, label: str, mistakes: Mistakes, extra: Iterable[str] = (), *, where: str = ""
) -> dict[str, Value]:
    """Read a section's settings, without those that are unknown or have an invalid value.

    Args:
        value: the section, as parsed from TOML.
        section: of `SECTIONS`, or "machine".
        label: the file, for errors.
        mistakes: collects its mistakes.
        extra: keys that are no settings; their values are returned as they are.
        where: the section's name in the file, by default `section`.
    """
    where = where or section
    model = settings(SECTIONS.get(section, MachineSettings))
    made: dict[str, Value] = {}
    with mistakes:
        for key, raw in table_of(value, where, label).items():
            source = f"{label}: {where}.{key}"
            if key in extra:
                made[key] = Value(raw, source)
            elif key in model:
                with mistakes:
                    made[key] = Value(_value(model[key], raw, source, quoted=True), source)
            else:
                mistakes.add(f"{source}: unknown; {_known(key, (*model, *extra))}")
    return made


def _value(attribute: attrs.Attribute[Any], raw: object, source: str, *, quoted: bool = False) -> object:
    example = f"{attribute.name} = {example_toml(attribute)}" if quoted else attribute.metadata["example"]
    return parsed(attribute.metadata["kind"].parse, raw, source, own_example(example))


def parsed(parse: Any, raw: object, source: str, example: str, *more: object) -> Any:
    """Parse a value.

    Raises:
        ConfigError: it is invalid; has its source and an example.
    """
    try:
        return parse(raw, *more)
    except ValueError as error:
        shown = "(hidden)" if parse is values.token else quoted(raw)
        raise ConfigError(f"{source} is {shown}: {error}; for example: {example}") from None


def quoted(raw: object) -> str:
    """Return a value for an error: escaped, and not too long."""
    try:
        text = str(raw)
        if len(text) >= 80:
            return ascii(text[:80]) + "…"
        return ascii(raw) if isinstance(raw, str | list | dict) else text.lower()  # as TOML spells true
    except (ValueError, RecursionError):  # a number with thousands of digits, deeply nested lists
        return "too long to be shown"


def variable(setting: attrs.Attribute[Any]) -> str:
    """Return the environment variable of a setting."""
    return ENVIRONMENT_PREFIX + flag_of(setting).upper().replace("-", "_")


def from_environment(environment: Mapping[str, str], mistakes: Mistakes) -> dict[tuple[str, str], Value]:
    """Read the settings in VHOSTCOMM_… variables, by section and name, without those that are unknown or invalid."""
    known = {
        variable(each): (section, each) for section, model in SECTIONS.items() for each in settings(model).values()
    }
    made: dict[tuple[str, str], Value] = {}
    for name, raw in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or name.startswith(FOREIGN_VARIABLES) or name in CLUSTER_VARIABLES:
            continue
        if name not in known:
            mistakes.add(_unknown_variable(name, (*known, *CLUSTER_VARIABLES)))
            continue
        section, each = known[name]
        with mistakes:
            made[section, each.name] = Value(_value(each, raw, f"the environment's {name}"), f"environment {name}")
    return made


def _unknown_variable(name: str, known: Iterable[str]) -> str:
    word = name.removeprefix(ENVIRONMENT_PREFIX)
    near = difflib.get_close_matches(word, [each.removeprefix(ENVIRONMENT_PREFIX) for each in known], n=1)
    meant = f"did you mean {ENVIRONMENT_PREFIX}{near[0]}?" if near else "`vhostcomm serve --help` lists the variables"
    return f"the environment's {name}: unknown; {meant}"


FOREIGN_VARIABLES: Final = tuple(
    ENVIRONMENT_PREFIX + each for each in ("HOOK_", "KERNEL", "MODULES", "CACHE", "QEMU", "QEMU_DATA")
)
"""Other variables with this prefix: those that hooks receive, and those of the tests' guest."""

CLUSTER_VARIABLES: Final = frozenset(
    f"{ENVIRONMENT_PREFIX}CLUSTER{each}"
    for each in ("", "_CA", "_CERT", "_KEY", "_USER", "_PASSWORD", "_HOST", "_CONTROL")
)
"""Variables of the flags in `vhostcomm.cli.cluster`."""


def from_flags(flags: Flags, mistakes: Mistakes) -> dict[tuple[str, str], Value]:
    """Read the settings in flags, by section and name, without those with an invalid value."""
    made: dict[tuple[str, str], Value] = {}
    for section, model in SECTIONS.items():
        for each in settings(model).values():
            flag = flag_of(each)
            if flags.get(flag) is not None:
                with mistakes:
                    made[section, each.name] = Value(_value(each, flags[flag], f"--{flag}"), f"--{flag}")
    return made


def _known(given: str, names: Sequence[str]) -> str:
    """Suggest the nearest name, and list all names."""
    near = difflib.get_close_matches(given, names, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"known: {', '.join(names)}"

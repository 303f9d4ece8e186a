"""Make flags from the configuration's models, so that both always match."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, TypeVar

import attrs
from cyclopts import Group, Parameter

from vhostcomm.config import http_address, values
from vhostcomm.config.identity import default_text, flag_of
from vhostcomm.config.models import SECTIONS, settings
from vhostcomm.config.reading import variable
from vhostcomm.errors import QemuError, UsageError

T = TypeVar("T")

GROUPS: Final = {
    "host": Group("The host's identity", sort_key=2),
    "guest": Group("The guest's identity", sort_key=3),
    "serve": Group("Serving", sort_key=4),
}


USED: Final = {"guest-uuid", "guest-serial", "vcpus"}
"""Settings that matter where another program runs QEMU: the UUID, which a serial number determines, and the processors of
a whole machine."""

USED_BY_SCRIPT: Final = {"control", "guest-uuid", "guest-serial"}
"""Those that matter to a script that asks the daemon over a unix socket."""

USED_BY_PROXMOX: Final = USED | USED_BY_SCRIPT
"""Those that matter to Proxmox VE, which runs QEMU and a script."""

_OF_MACHINE: Final = {"vcpus": " Only with a DIRECTORY, or libvirt's --domain."}
"""What help adds to a flag that only a whole machine can have, where another program runs QEMU."""


def _setting_flags(listed: Container[str] | None = None) -> type:
    """Make the flags. Help lists those of `listed`, by default all."""
    fields: dict[str, Any] = {}
    for section, model in SECTIONS.items():
        for each in settings(model).values():
            default = default_text(each)
            shown = f"default: {default}; " if default else ""
            only = _OF_MACHINE.get(each.name, "") if listed else ""
            parameter = Parameter(
                help=f"{each.metadata['help']}{only} [{shown}{variable(each)}]",
                group=GROUPS[section],
                metavar=each.metadata["word"],
                show=listed is None or flag_of(each) in listed,
            )
            fields[flag_of(each).replace("-", "_")] = attrs.field(default=None, type=Annotated[_hint(each), parameter])  # type: ignore[call-overload]
    return attrs.make_class("SettingFlags", fields, frozen=True)


def _hint(each: attrs.Attribute[Any]) -> Any:
    """Return the type: text for the setting's parser, or another type for shell completion."""
    kind = each.metadata["kind"]
    if kind.choices:
        return Literal[kind.choices] | str | None
    return str | Path | None if kind in {values.PATH, http_address.API, http_address.CONTROL} else str | None


if TYPE_CHECKING:
    Place: TypeAlias = str
    SettingFlags: TypeAlias = Any
    UsedFlags: TypeAlias = Any
    ScriptFlags: TypeAlias = Any
    ProxmoxFlags: TypeAlias = Any
else:
    Place = str | Path  # text; shells complete files
    SettingFlags, UsedFlags, ScriptFlags, ProxmoxFlags = (
        Annotated[_setting_flags(used), Parameter(name="*", show_default=False, show_choices=False)]
        for used in (None, USED, USED_BY_SCRIPT, USED_BY_PROXMOX)
    )

Socks = Annotated[
    list[Place] | None,
    Parameter(
        metavar="[NAME=]SOCK",
        group=Group("Guests", sort_key=1),
        help="A guest's socket; may be repeated. NAME ends at the first =. SOCK is a path that QEMU connects to; a guest's UUID, "
        "which names a socket in the runtime directory; connect:PATH, where QEMU or libvirt listens; or tcp:HOST:PORT.",
    ),
]
ConfigFiles = Annotated[
    list[Path] | None,
    Parameter(
        name=["--config", "-c"],
        metavar="FILE",
        group=Group("Guests", sort_key=1),
        help="A TOML file with the configuration, or a directory of them (`*.toml`, in the order of their names); "
        "`vhostcomm config init` writes one. May be repeated: a later file overrides an earlier one, key by key.",
    ),
]
Watch = Annotated[
    list[Place] | None,
    Parameter(
        metavar="DIRECTORY",
        group=Group("Guests", sort_key=1),
        help="A directory; each socket that appears in it is a guest with the file's name. May be repeated.",
    ),
]


_LOG = Group("The log", sort_key=8)
Verbose = Annotated[bool, Parameter(name=["--verbose", "-v"], group=_LOG, help="Log more: --log-level debug.")]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], group=_LOG, help="Log less: --log-level warning.")]


def parsed(parse: Callable[[str], T], flag: str, text: str, example: str = "") -> T:
    """Parse the value of a flag.

    Raises:
        UsageError: it is invalid; has the reason and the example.
    """
    try:
        return parse(text)
    except (ValueError, QemuError) as error:
        shown = f"; for example: {flag} {example}" if example else ""
        raise UsageError(f"{flag} {text or repr(text)}: {error}{shown}") from None


def given(settings: SettingFlags = None, *, verbose: bool = False, quiet: bool = False) -> dict[str, object]:
    """Return the values of all flags that were given, by the flag's name.

    Raises:
        UsageError: the log level is given twice.
    """
    found = attrs.asdict(settings) if settings else {}
    made = {name.replace("_", "-"): value for name, value in found.items() if value is not None}
    for is_set, flag, level in ((verbose, "--verbose", "debug"), (quiet, "--quiet", "warning")):
        if is_set and made.setdefault("log-level", level) != level:
            other = "--verbose" if quiet and verbose else "--log-level"
            raise UsageError(f"{other} and {flag} set different levels of the log: give one of them")
    return made

"""Flags made from the configuration's models, so that the two can't differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import attrs
from cyclopts import Group, Parameter

from vhostcomm.config import SECTIONS, settings
from vhostcomm.load import ENVIRONMENT_PREFIX

GROUPS: Final = {
    "host": Group("The host's identity", sort_key=2),
    "guest": Group("The guest's identity", sort_key=3),
    "serve": Group("Serving", sort_key=4),
}


def _flags(section: str) -> type:
    fields: dict[str, Any] = {}
    for each in settings(SECTIONS[section]).values():
        flag = each.metadata["flag"]
        variable = ENVIRONMENT_PREFIX + flag.upper().replace("-", "_")
        shown = _shown(each)
        parameter = Parameter(
            name=f"--{flag}",
            help=f"{each.metadata['help']} [{shown}{variable}]",
            group=GROUPS[section],
            show_default=False,
        )
        fields[flag.replace("-", "_")] = attrs.field(default=None, type=Annotated[str | None, parameter], kw_only=True)  # type: ignore[call-overload]
    return attrs.make_class(f"{section.title()}Flags", fields, frozen=True)


def _shown(each: attrs.Attribute[Any]) -> str:
    if each.default in ("", None):
        return ""
    match each.metadata["flag"]:
        case "socket-mode":
            default = f"{each.default:04o}"
        case "update-deadline":
            default = "never"
        case "record-limit":
            default = "64M"
        case _:
            default = str(each.default)
    return f"default: {default}; "


if TYPE_CHECKING:
    HostFlags: TypeAlias = Any
    GuestFlags: TypeAlias = Any
    ServeFlags: TypeAlias = Any
else:
    HostFlags = Annotated[_flags("host"), Parameter(name="*")]
    GuestFlags = Annotated[_flags("guest"), Parameter(name="*")]
    ServeFlags = Annotated[_flags("serve"), Parameter(name="*")]

Socks = Annotated[
    list[str] | None,
    Parameter(
        name="--sock",
        negative=(),
        group=Group("Guests", sort_key=1),
        help="A guest's socket, `[NAME=]SOCK`; may be repeated. NAME ends at the first =. SOCK is a path or a guest's UUID (a socket of that name in "
        "the runtime directory, and the guest's UUID), which QEMU connects to; connect:PATH, where QEMU or libvirt "
        "listens and we connect; or tcp:HOST:PORT.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    Parameter(
        name=["--config", "-c"],
        group=Group("Guests", sort_key=1),
        help="A TOML file; `vhostcomm config init` writes one.",
    ),
]
Watch = Annotated[
    list[str] | None,
    Parameter(
        name="--watch",
        negative=(),
        group=Group("Guests", sort_key=1),
        help="A folder where every socket that appears is a guest's, with the file's name; may be repeated.",
    ),
]


def given(*flags: Any) -> dict[str, object]:
    """The values of all flags that were given, by the flag's name."""
    return {
        name.replace("_", "-"): value
        for each in flags
        if each is not None
        for name, value in attrs.asdict(each).items()
        if value is not None
    }

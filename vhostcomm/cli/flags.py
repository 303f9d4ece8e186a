"""Flags made from the configuration's models, so that the two can't differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import attrs
from cyclopts import Group, Parameter

from vhostcomm.config import address, values
from vhostcomm.config.formats import default_text, format_of
from vhostcomm.config.load import variable
from vhostcomm.config.models import SECTIONS, settings

GROUPS: Final = {
    "host": Group("The host's identity", sort_key=2),
    "guest": Group("The guest's identity", sort_key=3),
    "serve": Group("Serving", sort_key=4),
}


def _flags(section: str) -> type:
    fields: dict[str, Any] = {}
    for each in settings(SECTIONS[section]).values():
        flag = each.metadata["flag"]
        default = default_text(each)
        shown = f"default: {default}; " if default else ""
        parameter = Parameter(
            name=f"--{flag}",
            help=f"{each.metadata['help']} [{shown}{variable(each)}]",
            group=GROUPS[section],
            metavar=format_of(each).word,
            show_default=False,
            show_choices=False,
        )
        fields[flag.replace("-", "_")] = attrs.field(default=None, type=Annotated[_hint(each), parameter], kw_only=True)  # type: ignore[call-overload]
    return attrs.make_class(f"{section.title()}Flags", fields, frozen=True)


def _hint(each: attrs.Attribute[Any]) -> Any:
    """Text, which the setting's parser reads; what else it is makes shells complete it."""
    match each.metadata["parse"]:
        case values.Choice(allowed=words):
            return Literal[words] | str | None
        case values.boolean:
            return Literal["yes", "no"] | str | None  # noqa: PYI051 - the words are for the shells
        case values.path | address.api | address.control:
            return str | Path | None
        case _:
            return str | None


if TYPE_CHECKING:
    Place: TypeAlias = str
    HostFlags: TypeAlias = Any
    GuestFlags: TypeAlias = Any
    ServeFlags: TypeAlias = Any
else:
    Place = str | Path  # text; shells complete files
    HostFlags = Annotated[_flags("host"), Parameter(name="*")]
    GuestFlags = Annotated[_flags("guest"), Parameter(name="*")]
    ServeFlags = Annotated[_flags("serve"), Parameter(name="*")]

Socks = Annotated[
    list[Place] | None,
    Parameter(
        name="--sock",
        metavar="[NAME=]SOCK",
        negative=(),
        group=Group("Guests", sort_key=1),
        help="A guest's socket; may be repeated. NAME ends at the first =. SOCK is a path or a guest's UUID (a socket of that name in "
        "the runtime directory, and the guest's UUID), which QEMU connects to; connect:PATH, where QEMU or libvirt "
        "listens and we connect; or tcp:HOST:PORT.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    Parameter(
        name=["--config", "-c"],
        metavar="FILE",
        group=Group("Guests", sort_key=1),
        help="A TOML file; `vhostcomm config init` writes one.",
    ),
]
Watch = Annotated[
    list[Place] | None,
    Parameter(
        name="--watch",
        metavar="FOLDER",
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

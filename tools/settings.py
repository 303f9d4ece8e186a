"""Generate a part of docs/configuration.md: every setting, from the configuration's models."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any, Final

import attrs
from attrs import frozen

from vhostcomm.config.identity import default_text, example_toml, flag_of
from vhostcomm.config.machine import MachineSettings
from vhostcomm.config.models import SECTIONS, settings
from vhostcomm.config.reading import variable

_RELOAD: Final = "at a reload, and at the start"
_START: Final = "at the start"
_RUN: Final = "at the start of `vhostcomm run`"

_INTROS: Final = {
    "host": "[host]: the host's identity\n\nThe host's identity, the same for all guests.",
    "guest": "[guest]: the guest's identity\n\nValues for every guest. The same keys in `[guests.NAME]` apply to that guest "
    "alone, and override `[guest]`.",
    "guests.NAME": "[guests.NAME]: one guest\n\nOne section for each guest; all keys of `[guest]`, and",
    "serve": "[serve]: serving\n\nHow guests are served.",
}


@frozen
class Setting:
    """A setting to document; `help`, `value` and `default` are Markdown."""

    section: str
    key: str
    toml: str
    help: str
    value: str
    default: str
    takes_effect: str
    environment: str = ""
    flag: str = ""

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"


def all_settings() -> Iterator[Setting]:
    """Yield every key of the file, in order."""
    for section, model in SECTIONS.items():
        if section == "serve":
            yield Setting(
                "guests.NAME", "sock", '"/run/vhostcomm/nas"',
                "The address of the guest's channel. NAME is the guest's name: 1 to 64 letters, digits, dots, dashes and "
                "underscores, no dot in front.",
                "a path that QEMU connects to; `connect:PATH`, where QEMU or libvirt listens and vhostcomm connects; `tcp:HOST:PORT`",
                "a socket of the guest's UUID or name in the runtime directory", _RELOAD, flag="--sock NAME=SOCK",
            )  # fmt: skip
            yield Setting(
                "guests.NAME", "qmp", '"/run/qemu/nas.qmp"',
                "A QMP socket of the guest's QEMU that no other client uses. vhostcomm then shows the cause of a pause, and "
                "`vhostcomm resume` and `balloon` work. `run` has a QMP connection of its own and ignores this.",
                "a path on which QEMU listens (`-qmp unix:PATH,server=on,wait=off`)", "", _RELOAD,
            )  # fmt: skip
            for each in settings(MachineSettings).values():
                default = {"net": "`user`", "memory": "`1G`"}.get(each.name, "")
                yield _setting("guests.NAME.machine", each, default=default, takes_effect=_RUN)
        for each in settings(model).values():
            default = f"`{default_text(each)}`" if default_text(each) else ""
            effect = _START if section == "serve" else _RELOAD
            environment = f"{variable(each)}={shlex.quote(str(each.metadata['example']))}"
            yield _setting(section, each, default=default, takes_effect=effect, environment=environment)
    yield Setting(
        "serve", "watch", '["/run/guests"]', "Directories; each socket that appears in one is a guest with the file's name.",
        "a list of paths", "", _START, flag="--watch DIRECTORY",
    )  # fmt: skip


def _setting(section: str, each: attrs.Attribute[Any], **more: str) -> Setting:
    metadata, flag = each.metadata, f"--{flag_of(each)} {each.metadata['word']}"
    return Setting(section, each.name, example_toml(each), metadata["help"], metadata["kind"].words, flag=flag, **more)


def configuration() -> str:
    parts = ["| key | environment | flag | default |\n| --- | --- | --- | --- |"]
    parts += [_row(each) for each in all_settings()]
    headed = ""
    for each in all_settings():
        if each.section != headed and each.section in _INTROS:
            parts.append(f"\n## {_INTROS[each.section]}")
        headed = each.section
        parts.append(_details(each))
    return "\n".join(parts)


def _row(each: Setting) -> str:
    anchor = each.name.replace(".", "").lower()  # as GitHub makes it
    names = (each.environment.partition("=")[0], each.flag.partition(" ")[0])
    environment, flag = (f"`{name}`" if name else "" for name in names)
    return f"| [`{each.name}`](#{anchor}) | {environment} | {flag} | {each.default} |"


def _details(each: Setting) -> str:
    lines = [
        f"Value: {each.value}." + (f" Default: {each.default}." if each.default else ""),
        f"File: `[{each.section.replace('NAME', 'nas')}]` `{each.key} = {each.toml}`",
        "; ".join(
            f"{what}: `{text}`" for what, text in (("Flag", each.flag), ("environment", each.environment)) if text
        ),
        f"Takes effect {each.takes_effect}.",
    ]
    return f"\n### {each.name}\n\n{each.help}\n\n" + "\n".join(f"* {line}" for line in lines if line)

"""docs/configuration.md, made from the configuration's models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
from attrs import frozen

from tools.commands import cell
from vhostcomm.config.formats import default_text, format_of
from vhostcomm.config.load import variable
from vhostcomm.config.machine import MachineSettings
from vhostcomm.config.models import SECTIONS, settings

RELOAD, START = "at a reload, and at the start", "at the start"

INTROS = {
    "host": ("The host's identity", "The host's identity, the same for all guests."),
    "guest": (
        "The guest's identity",
        "Values for every guest. The same keys in `[guests.NAME]` apply to that guest alone, and override `[guest]`.",
    ),
    "serve": ("Serving", "How guests are served."),
}


@frozen
class Setting:
    """A setting as it is documented; `help` and `format` in Markdown."""

    section: str
    key: str
    toml: str
    help: str
    format: str
    default: str
    takes_effect: str
    environment: str = ""
    flag: str = ""

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"


def all_settings() -> Iterator[Setting]:
    """Every key of the file, in its order."""
    for section, model in SECTIONS.items():
        if section == "serve":
            yield Setting(
                "guests.NAME", "sock", '"/run/vhostcomm/nas"',
                "Where the guest's channel is. NAME is what the guest is called here: 1 to 64 letters, digits, dots, dashes "
                "and underscores, no dot in front.",
                "a path that QEMU connects to; `connect:PATH`, where QEMU or libvirt listens and we connect; `tcp:HOST:PORT`",
                "a socket of the guest's UUID or name in the runtime directory", RELOAD, flag="--sock NAME=SOCK",
            )  # fmt: skip
            yield Setting(
                "guests.NAME", "qmp", '"/run/qemu/nas.qmp"',
                "A QMP socket of the guest's QEMU, for vhostcomm alone: a pause is shown with its cause, and `vhostcomm "
                "resume` works. `run` has a QMP connection of its own and ignores this.",
                "a path on which QEMU listens (`-qmp unix:PATH,server=on,wait=off`)", "none", RELOAD,
            )  # fmt: skip
            yield from map(_machine_setting, settings(MachineSettings).values())
        yield from (_setting(section, each) for each in settings(model).values())
    yield Setting(
        "serve", "watch", '["/run/guests"]', "Folders where every socket that appears is a guest's, with the file's name.",
        "a list of paths", "", START, flag="--watch FOLDER",
    )  # fmt: skip


def _setting(section: str, each: attrs.Attribute[Any]) -> Setting:
    shape, example = format_of(each), str(each.metadata["example"])
    return Setting(
        section, each.name, _toml(each, example), each.metadata["help"], shape.words, default_text(each),
        START if section == "serve" else RELOAD, f"{variable(each)}={_quoted(example)}",
        f"--{each.metadata['flag']} {shape.word}",
    )  # fmt: skip


def _machine_setting(each: attrs.Attribute[Any]) -> Setting:
    example = str(each.metadata["example"])
    toml = example if example.startswith("[") else json.dumps(example)
    defaults = {"net": "user", "memory": "1G"}
    return Setting(
        "guests.NAME.machine", each.name, toml, each.metadata["help"], format_of(each).words,
        defaults.get(each.name, "none"), "at the start of `vhostcomm run`", flag=f"--{each.metadata['flag']}",
    )  # fmt: skip


def _toml(each: attrs.Attribute[Any], example: str) -> str:
    match each.default:
        case bool():
            return str(example == "yes").lower()
        case int() | float() if example.isdigit() and each.name != "socket_mode":
            return example
        case _:
            return json.dumps(example)


def _quoted(example: str) -> str:
    return f"'{example}'" if " " in example or "{" in example else example


HEAD = """\
# Configuration

<!-- Made from the program by `make docs`; edits here are lost. -->

Flags override environment variables, which override the TOML file (`--config FILE`). `vhostcomm config init` writes a
commented file with every key. `vhostcomm config show` prints the active values, and the origin of each. Unknown keys,
unknown `VHOSTCOMM_…` variables and invalid values are rejected. The message names the key, the variable or the flag, and
shows the valid ones or an example. If the file isn't TOML, the message names the line. Every default of an identity is a
placeholder.

```toml
[host]
serial = "1234ABC567890"

[guests.nas]
sock = "/run/vhostcomm/nas"
serial = "1234ABC567891"

[guests.attic]
sock = "connect:/run/guests/attic"
serial = "1234ABC567892"
```

SIGHUP (`systemctl reload`, `vhostcomm reload`, `POST /reload`) reads the file again. Guests are added, removed and
changed; the others are not affected. New identities take effect with the next answer. A file that is invalid, names no
guest or can't be served is rejected whole: the previous configuration stays active, and `/healthz` says why. vhostcomm
retries sockets that could not be made. Changed keys of `[serve]` are logged, and take effect at the next start. The
environment and the flags remain as they were at the start.

A socket without a path is made in the runtime directory: `RUNTIME_DIRECTORY` (systemd sets it), else `/run/vhostcomm` for
root, else `$XDG_RUNTIME_DIR/vhostcomm`.
"""


def configuration() -> str:
    parts = [HEAD, "\n".join(_overview()), ""]
    headed = ""
    for each in all_settings():
        if each.section != headed and each.section in INTROS:
            title, words = INTROS[each.section]
            parts += [f"## [{each.section}]: {title[0].lower()}{title[1:]}\n", f"{words}\n"]
        elif each.section != headed:
            parts += ["## [guests.NAME]: one guest\n", "One section for each guest; all keys of `[guest]`, and\n"]
        headed = each.section
        parts += ["\n".join(_details(each)), ""]
    return "\n".join(parts).rstrip() + "\n"


def _overview() -> Iterator[str]:
    yield "| key | environment | flag | default |\n| --- | --- | --- | --- |"
    for each in all_settings():
        name, _, _ = each.environment.partition("=")
        environment = f"`{name}`" if name else ""
        yield (
            f"| [`{each.name}`](#{_anchor(each)}) | {environment} | `{each.flag.partition(' ')[0]}` "
            f"| {cell(_default(each))} |"
        )


def _anchor(each: Setting) -> str:
    """GitHub's, of a heading."""
    return each.name.replace(".", "").lower()


def _default(each: Setting) -> str:
    return each.default if " " in each.default and not each.environment else f"`{each.default}`" if each.default else ""


def _details(each: Setting) -> Iterator[str]:
    section = each.section.replace("NAME", "nas")
    yield f"### {each.name}\n"
    yield f"{each.help}\n"
    yield "| | |\n| --- | --- |"
    yield f"| value | {cell(each.format)} |"
    yield f"| default | {cell(_default(each)) or 'none'} |"
    yield f"| in the file | `[{section}]` `{cell(f'{each.key} = {each.toml}')}` |"
    if each.environment:
        yield f"| in the environment | `{cell(each.environment)}` |"
    yield f"| as a flag | `{cell(each.flag)}` |"
    yield f"| takes effect | {each.takes_effect} |"

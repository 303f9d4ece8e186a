"""Make the commented configuration file from the models."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from vhostcomm.config.address import own_example
from vhostcomm.config.identity import example_toml
from vhostcomm.config.models import SECTIONS, settings

_HEAD = """\
# vhostcomm: the identities of guests, and how they are served.
#
# Lines that begin with # show the defaults. Flags (--host-serial, ...) override
# environment variables (VHOSTCOMM_HOST_SERIAL, ...), which override this file.
# `vhostcomm config show --config THIS` shows the active values and their
# origin. `systemctl reload` or SIGHUP reads the file again.
#
# Every default is a placeholder. You provide serial numbers and UUIDs. Whether
# you may run the guest depends on its licence.
"""

_INTROS = {
    "host": "The host's identity, the same for all guests.",
    "guest": "Values for every guest, unless its own section below overrides them.",
    "serve": "How guests are served. Changes here need a restart.",
}

_GUESTS = """\
# One section per guest. `sock` is a path that QEMU connects to, connect:PATH if
# QEMU or libvirt listens, or tcp:HOST:PORT. Without `sock`, the socket has the
# guest's UUID or name and is in the runtime directory, as here. Every key of
# [guest] is valid here too, and applies to this guest alone.
[guests.nas]
# sock = "/run/vhostcomm/nas"
# `qmp` is a QMP socket of its QEMU that no other client uses, to show and
# resume a paused machine.
# qmp = "/run/qemu/nas.qmp"
# serial = "0000000000000"
# vcpus = 1
#
# What `vhostcomm run` starts; paths are relative to this file. `vhostcomm
# install` writes it.
[guests.nas.machine]
# boot = "synoboot.img"
# system = "system.img"
# data = ["data.img"]
# mac = "02:11:32:00:00:01"
# memory = "2G"
# net = "user"
# forward = ["5000:5000"]
"""


def template() -> str:
    """Return the whole file, with examples for this user."""
    parts = [_HEAD]
    parts.extend("\n".join(_section(section)) + "\n" for section in ("host", "guest"))
    parts.append(_GUESTS)
    parts.append(
        "\n".join(_section("serve"))
        + '\n#\n# Directories where every socket that appears is a guest\'s.\n# watch = ["/run/guests"]\n'
    )
    return own_example("\n".join(parts))


def _section(section: str) -> Iterator[str]:
    yield f"# {_INTROS[section]}"
    yield f"[{section}]"
    for each in settings(SECTIONS[section]).values():
        yield from textwrap.wrap(each.metadata["help"], 80, initial_indent="# ", subsequent_indent="# ")
        default = example_toml(each) if each.default == "" else each.metadata["kind"].toml(each.default)
        yield f"# {each.name} = {default}"

"""What a served guest's administrator pastes elsewhere, for clients of the control surface."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vhostcomm.config.models import Config, GuestConfig
from vhostcomm.errors import UsageError

if TYPE_CHECKING:
    from vhostcomm.snippet.parts import Snippet


def snippets_of(config: Config, guest: GuestConfig) -> dict[str, Snippet]:
    """Return the snippets for a guest that need only its configuration, by the tool's name.

    A snippet without text has the reason as its remark: QEMU can't connect to the guest's address.
    """
    from vhostcomm.snippet.compose import compose
    from vhostcomm.snippet.libvirt import devices
    from vhostcomm.snippet.parts import Snippet, Spelling
    from vhostcomm.snippet.qemu import arguments

    spelling = Spelling.unasked()
    kinds: dict[str, Callable[[], Snippet]] = {
        "QEMU": lambda: arguments(guest, spelling),
        "libvirt": lambda: devices(guest),
        "Docker Compose": lambda: compose(config, guest, spelling),
    }
    made = {}
    for kind, make in kinds.items():
        try:
            made[kind] = make()
        except UsageError as error:
            made[kind] = Snippet("", (str(error),))
    return made

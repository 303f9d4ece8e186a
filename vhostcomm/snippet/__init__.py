"""Text to paste into other tools so that they run a guest with vhostcomm, made from its configuration. Pure.

One module for each kind: `qemu`, `libvirt`, `domain` (a whole libvirt domain), `proxmox`, `hookscript`, `compose` and
`systemd`. Each makes a `Snippet` of a guest's configuration.
"""

from vhostcomm.snippet.parts import Snippet, Spelling, channel_of

__all__ = ["Snippet", "Spelling", "channel_of"]

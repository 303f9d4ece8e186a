"""What to paste elsewhere so that a guest is served, made from its configuration. Pure.

One module a kind: `qemu`, `libvirt`, `domain` (libvirt's whole domain), `proxmox`, `hookscript`, `compose` and `systemd`. Each
takes a guest's configuration and gives a `Snippet`.
"""

from vhostcomm.snippet.parts import Snippet, Spelling, channel_of

__all__ = ["Snippet", "Spelling", "channel_of"]

"""A Proxmox VE hookscript: starts the VM only if a daemon serves its guest, and stops it by the guest's power-off."""

from __future__ import annotations

import shlex
from typing import Final

from vhostcomm.config.address import Listen
from vhostcomm.config.models import GuestConfig
from vhostcomm.errors import UsageError
from vhostcomm.snippet.parts import Snippet

WAIT: Final = 50
"""Seconds for the guest's own power-off: Proxmox VE allows 60 for a shutdown, and a hanging daemon costs 5 more."""

WAIT_MAX: Final = 3600

_SCRIPT: Final = r"""#!/bin/sh
# Proxmox VE runs this for the guest {name} as: SCRIPT VMID PHASE
#
# pre-start   checks that the daemon serves the guest, and starts its service if there is one. It fails otherwise,
#             so that the VM does not start without a daemon
# pre-stop    asks the guest to power itself off and waits {wait} s at most, also for a guest that still boots. It never
#             fails: Proxmox VE then ends the VM in any case. Proxmox VE runs it for Stop too, not only for Shutdown
# post-stop   reports how the guest ended
set -u

vhostcomm={program}
guest={guest}
control={control}
sock={sock} # empty if QEMU listens
unit={unit}
wait={wait}

say() {{
    echo "vhostcomm, VM $vmid: $*" >&2
}}

ask() {{
    timeout 20 "$vhostcomm" "$@" --control "$control"
}}

# 0 served, 1 no daemon, 2 a daemon without this guest
served() {{
    guests=$(ask guests --json 2>&1) || return 1
    case $guests in *"\"name\": \"$guest\""*) ;; *) return 2 ;; esac
    [ -z "$sock" ] || [ -S "$sock" ] || return 2
}}

vmid=${{1-}} phase=${{2-}}
if [ -z "$phase" ]; then
    echo "usage: $0 VMID PHASE, as Proxmox VE runs it; PHASE is pre-start, post-start, pre-stop or post-stop" >&2
    exit 2
fi

case $phase in
pre-start)
    served
    found=$?
    if [ "$found" = 1 ] && [ -n "$unit" ] && systemctl start "$unit" 2>/dev/null; then
        # A service may count as started before it serves.
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            served
            found=$?
            [ "$found" = 1 ] || break
            sleep 1
        done
    fi
    case $found in
    0) ;;
    1)
        say "$guests"
        say "no daemon serves $guest, so the VM is not started${{unit:+: systemctl status $unit}}"
        exit 1
        ;;
    *)
        say "the daemon at $control does not serve $guest${{sock:+ at $sock}}, so the VM is not started:" \
            "add it to the daemon's configuration, and reload the daemon${{unit:+: systemctl reload $unit}}"
        exit 1
        ;;
    esac
    ;;
post-start) ;;
pre-stop)
    timeout "$((wait + 5))" "$vhostcomm" shutdown "$guest" --wait "$wait" --control "$control" ||
        say "$guest did not power itself off; Proxmox VE continues with its own stop"
    ;;
post-stop)
    say "$(ask info "$guest" 2>&1)"
    ;;
*)
    say "nothing to do for the phase $phase"
    ;;
esac
exit 0
"""


def script(
    guest: GuestConfig,
    control: object,
    *,
    program: str = "vhostcomm",
    unit: str = "vhostcomm.service",
    wait: int = WAIT,
) -> Snippet:
    """Make the script.

    Args:
        guest: the guest to start and stop.
        control: the address of its daemon's control surface.
        program: vhostcomm's executable.
        unit: the daemon's service; "" for none.
        wait: seconds for the guest's own power-off.

    Raises:
        UsageError: a script can't ask the daemon.
    """
    if not isinstance(control, Listen):
        raise UsageError(
            "a hookscript asks the daemon over its control surface, a unix socket: configure one with --control PATH; "
            f"now it is {'TCP, which needs a token or a certificate' if control else 'disabled'}"
        )
    if not 1 <= wait <= WAIT_MAX:
        raise UsageError(f"--wait {wait}: expected seconds, 1 to {WAIT_MAX}")
    text = _SCRIPT.format(
        name=guest.name,
        guest=shlex.quote(guest.name),
        program=shlex.quote(program),
        control=shlex.quote(str(control.path)),
        sock=shlex.quote(str(guest.address.path)) if isinstance(guest.address, Listen) else "''",
        unit=shlex.quote(unit),
        wait=wait,
    )
    return Snippet(text.rstrip("\n"))

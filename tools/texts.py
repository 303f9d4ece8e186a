"""What man pages say that the program doesn't. Markdown."""

from __future__ import annotations

from typing import Final

_MISTAKE: Final = ("2", "A mistake in the command line or the configuration, found before anything was touched.")
_PLACE: Final = (
    "78",
    "A folder or group that isn't there, or isn't ours to use: another try changes nothing.",
)

EXIT_STATUS: Final = (
    ("0", "Done."),
    ("1", "A socket, a file, a guest or an answer that can't be had; a difference; a disk that isn't as it should be."),
    _MISTAKE,
    ("130", "Ended by Ctrl-C."),
)

SERVE_EXIT_STATUS: Final = (
    ("0", "Ended by SIGTERM or SIGINT, after answering what had been asked; its sockets are gone."),
    ("1", "A socket, a file or a folder that can't be had now."),
    _MISTAKE,
    _PLACE,
)

RUN_EXIT_STATUS: Final = (
    ("0", "The guest powered itself off, rebooted with `--no-reboot`, or was stopped by us."),
    ("1", "An error."),
    _MISTAKE,
    ("3", "QEMU did not start."),
    ("4", "The guest's kernel panicked."),
    ("5", "QEMU crashed; its last words and the command to paste are printed."),
    ("6", "It was ended through QMP by somebody else."),
    ("7", "It was ended by a signal of somebody else's."),
    ("8", "It had to be killed: what QEMU had not written to its disks is lost."),
    ("9", "It was stopped while it was paused, so the guest did not shut down."),
    ("10", "Its guest was migrated or saved: it runs elsewhere, or can be restored."),
    _PLACE,
)

_DIRECTORY: Final = (
    "RUNTIME_DIRECTORY, XDG_RUNTIME_DIR",
    "Where sockets without a path are: systemd's runtime directory, or the user's.",
)

SERVING_ENVIRONMENT: Final = (
    ("VHOSTCOMM_...", "Every setting of vhostcomm.toml(5) by its flag's name, such as `VHOSTCOMM_HOST_SERIAL`."),
    _DIRECTORY,
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, JOURNAL_STREAM",
        "systemd's: it is told how things are, and the log is made for its journal.",
    ),
    ("NO_COLOR", "No colours in a log on a terminal."),
)

ACTIVATION: Final = (
    ("LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES", "Sockets of systemd's socket activation, which are served too."),
)

ASKING_ENVIRONMENT: Final = (
    ("VHOSTCOMM_CONTROL, VHOSTCOMM_CONTROL_TOKEN", "Where the daemon listens that is asked, and the token it wants."),
    _DIRECTORY,
)

_CONTROL: Final = (
    "/run/vhostcomm/control.sock, /run/vhostcomm/control/",
    "Where daemons are asked, HTTP and JSON: the first one, and each of several.",
)

FILES: Final = (
    (
        "/run/vhostcomm/",
        "The runtime directory of root: sockets without a path. Others have `$XDG_RUNTIME_DIR/vhostcomm/`.",
    ),
    _CONTROL,
    (".vhostcomm-UID.lock", "In a folder of sockets: keeps a second daemon from them."),
)

ASKING_FILES: Final = (_CONTROL,)

SETTINGS: Final = """\
Values come from a TOML file (`--config`), over it from the environment, over it from flags. `vhostcomm config init` writes
a commented file with every key, `vhostcomm config show` prints what is in force and where each value came from. At SIGHUP
`serve` reads the file again.
"""

VDSM_RUN: Final = """\
The same as `vhostcomm run`, with all its flags: starts a guest's QEMU with the machine that a genuine host builds, answers
what the guest asks over its vchannel, and stays until the guest is done.
"""

QEMU_HOST: Final = """\
Answers what one guest asks its host, and asks it through HTTP: `/read?command=N` waits for the guest's answer,
`/write?command=N` doesn't. `-x=v`, `-x v` and `--x=v` are the same. What is asked and answered is written to standard
output, errors to standard error. An executable `print.sh` beside the program is started when the guest first asks who it
is, and again after each of its starts. The API has no password: who gets there can switch the guest off.
"""

EXAMPLES: Final = {
    "vhostcomm": """\
A guest's QEMU, started and answered:

    vhostcomm run --boot synoboot.img --system system.img --guest-serial 1234ABC567890

Guests that something else runs:

    vhostcomm serve --config vhostcomm.toml

How they are, and an end to one of them:

    vhostcomm guests
    vhostcomm shutdown nas --wait 90
""",
    "vhostcomm-serve": """\
    vhostcomm serve --sock d990d22a-e971-ef5f-a7b3-e6374e496b34
    vhostcomm serve --sock nas=/run/vhostcomm/nas
    vhostcomm serve --sock connect:/run/guests/nas
    vhostcomm serve --sock tcp:127.0.0.1:12345
    vhostcomm serve --watch /run/guests
    vhostcomm serve --config vhostcomm.toml
""",
    "vhostcomm-run": """\
DSM at the host's port 5000:

    vhostcomm run --boot synoboot.img --system system.img --data data.img --forward 5000:5000

QEMU's command, to look at or to paste:

    vhostcomm run --boot synoboot.img --system system.img --dry-run

A flag of QEMU's own:

    vhostcomm run --boot synoboot.img --system system.img -- -vnc :1
""",
    "vhostcomm-probe": """\
    vhostcomm probe --sock /run/vhostcomm/nas
""",
    "vhostcomm-config": """\
    vhostcomm config init vhostcomm.toml
    vhostcomm config show --config vhostcomm.toml
""",
    "vhostcomm-guests": """\
    vhostcomm guests --watch
    vhostcomm guests --json | jq '.[].state'
""",
    "vhostcomm-shutdown": """\
    vhostcomm shutdown nas --wait 90
""",
    "vhostcomm-freeze": """\
    vhostcomm freeze nas --timeout 30 && lvcreate -s -n snap -L 1G vg/nas; vhostcomm thaw nas
""",
    "vhostcomm-call": """\
    vhostcomm call nas get_ip
    vhostcomm call 5
""",
    "vhostcomm-capture": """\
    vhostcomm capture show guest.jsonl
    vhostcomm capture redact guest.jsonl --output public.jsonl
    vhostcomm capture diff one.jsonl another.jsonl
    vhostcomm capture replay guest.jsonl --sock /run/vhostcomm/nas --ignore-identity
""",
    "vhostcomm-disk": """\
    vhostcomm disk inspect system.img
    vhostcomm disk init system.img --size 10G
""",
    "qemu-host": """\
    qemu-host -addr=unix:/run/guest.sock -api=unix:/run/api.sock -guestsn=1234ABC567890
    curl --unix-socket /run/api.sock 'http://localhost/read?command=6&timeout=90'
""",
    "vhostcomm.toml": """\
    [host]
    serial = "1234ABC567890"

    [guests.nas]
    sock = "/run/vhostcomm/nas"
    serial = "1234ABC567891"
""",
}

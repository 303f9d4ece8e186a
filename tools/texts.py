"""Texts of the man pages that the program does not contain, in Markdown."""

from __future__ import annotations

from typing import Final

_MISTAKE: Final = ("2", "An invalid command line or configuration; nothing was changed.")
_PLACE: Final = (
    "78",
    "A directory or group is missing, or the daemon has no access to it; a retry alone changes nothing.",
)

EXIT_STATUS: Final = (
    ("0", "Success."),
    ("1", "A socket, a file, a guest or an answer is unavailable; captures differ; a disk has the wrong layout."),
    _MISTAKE,
    ("130", "Interrupted by Ctrl-C."),
)

SERVE_EXIT_STATUS: Final = (
    ("0", "Ended by SIGTERM or SIGINT, after answering pending requests and removing its sockets."),
    ("1", "A socket, a file or a directory is unavailable; a retry may succeed."),
    _MISTAKE,
    _PLACE,
)

RUN_EXIT_STATUS: Final = (
    ("0", "The guest powered itself off, rebooted with `--no-reboot`, or was stopped by vhostcomm."),
    ("1", "An error."),
    _MISTAKE,
    ("3", "QEMU did not start."),
    ("4", "The guest's kernel panicked."),
    ("5", "QEMU crashed; its last output and its command are printed."),
    ("6", "Another QMP client ended QEMU."),
    ("7", "A signal from another process ended QEMU."),
    ("8", "QEMU had to be killed; data that it had not written to its disks is lost."),
    ("9", "QEMU was stopped while the machine was paused; the guest did not shut down."),
    ("10", "The guest was migrated or saved; it runs elsewhere, or can be restored."),
    _PLACE,
)

_DIRECTORY: Final = (
    "RUNTIME_DIRECTORY, XDG_RUNTIME_DIR",
    "Directory of sockets without a path: systemd's runtime directory, or the user's.",
)

SERVING_ENVIRONMENT: Final = (
    ("VHOSTCOMM_...", "Every setting of vhostcomm.toml(5), named after its flag, such as `VHOSTCOMM_HOST_SERIAL`."),
    _DIRECTORY,
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, JOURNAL_STREAM",
        "Set by systemd: vhostcomm reports its status, and formats the log for the journal.",
    ),
    ("NO_COLOR", "Disable colours in a log on a terminal."),
)

ACTIVATION: Final = (
    ("LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES", "Sockets from systemd's socket activation; vhostcomm serves them too."),
)

ASKING_ENVIRONMENT: Final = (
    ("VHOSTCOMM_CONTROL, VHOSTCOMM_CONTROL_TOKEN", "Address of the daemon's control surface, and the token for it."),
    _DIRECTORY,
)

_CONTROL: Final = (
    "/run/vhostcomm/control.sock, /run/vhostcomm/control/",
    "Control surface of the first daemon, and of each of several; HTTP and JSON.",
)

FILES: Final = (
    (
        "/run/vhostcomm/",
        "Runtime directory of root, for sockets without a path. Users have `$XDG_RUNTIME_DIR/vhostcomm/`.",
    ),
    _CONTROL,
    (".vhostcomm-UID.lock", "Lock in a directory of sockets; keeps a second daemon away."),
)

ASKING_FILES: Final = (_CONTROL,)

SETTINGS: Final = """\
Flags override environment variables, which override the TOML file (`--config`). `vhostcomm config init` writes a commented
file with every key. `vhostcomm config show` prints the active values and the origin of each. On SIGHUP, `serve` reads the
file again.
"""

VDSM_RUN: Final = """\
The same as `vhostcomm run`, with all its flags: starts QEMU with the machine that a genuine host builds, answers the guest
over its vchannel, and ends when the guest ends.
"""

QEMU_HOST: Final = """\
Answers one guest, and serves an HTTP API to ask the guest: `/read?command=N` waits for the guest's answer,
`/write?command=N` does not. `-x=v`, `-x v` and `--x=v` are equivalent. Questions and answers are written to standard
output, errors to standard error. An executable `print.sh` beside the program is started when the guest first asks for its
identity, and again after each boot. The API has no password: any client that reaches it can power off the guest.
"""

EXAMPLES: Final = {
    "vhostcomm": """\
Start QEMU and answer its guest:

    vhostcomm run --boot synoboot.img --system system.img --guest-serial 1234ABC567890

Answer guests that another program runs:

    vhostcomm serve --config vhostcomm.toml

List guests, and shut one down:

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
Make DSM available at the host's port 5000:

    vhostcomm run --boot synoboot.img --system system.img --data data.img --forward 5000:5000

Print QEMU's command:

    vhostcomm run --boot synoboot.img --system system.img --dry-run

Pass a flag to QEMU:

    vhostcomm run --boot synoboot.img --system system.img -- -vnc :1
""",
    "vhostcomm-probe": """\
    vhostcomm probe /run/vhostcomm/nas
""",
    "vhostcomm-config": """\
    vhostcomm config init vhostcomm.toml
    vhostcomm config validate --config vhostcomm.toml
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
    vhostcomm freeze nas --thaw-after 30 && lvcreate -s -n snap -L 1G vg/nas; vhostcomm thaw nas
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

"""`vhostcomm serve`."""

from __future__ import annotations

import os
import socket
import stat
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from vhostcomm.cli.cluster import MemberOptions
from vhostcomm.cli.flags import ConfigFiles, Quiet, SettingFlags, Socks, Verbose, Watch, given
from vhostcomm.config import values
from vhostcomm.config.address import Activated, Sock
from vhostcomm.config.files import Merged, fingerprint
from vhostcomm.config.load import check, load
from vhostcomm.config.models import Config
from vhostcomm.errors import ConfigError, UsageError

_FIRST_FD = 3


def serve(
    *,
    sock: Socks = None,
    config: ConfigFiles = None,
    reload_on_change: Annotated[
        bool,
        Parameter(
            group=Group("Guests", sort_key=1),
            help="Reload when the content of the --config files changes. vhostcomm checks every 2 s, and at once where the "
            "system reports changes.",
        ),
    ] = False,
    watch: Watch = None,
    settings: SettingFlags = None,
    cluster: MemberOptions | None = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Serve guests: bind their sockets and answer their questions, until SIGTERM or SIGINT.

    QEMU connects with the arguments that `vhostcomm snippet qemu --unit none` prints for the same --sock or --config.

    Flags override environment variables, which override files; `vhostcomm config show` shows each value and its source.
    SIGHUP reloads the files. SIGUSR1 reopens recordings whose file was renamed or deleted. SIGHUP and SIGINT stay ignored if
    they were ignored at the start (nohup, a script's &). Sockets of systemd's socket activation are served too. The log goes
    to standard output; `run` writes it to standard error.

    Exit status: 0 ended by a signal; 1 a socket, a file or a directory can't be used now; 2 a mistake in the command line or
    the configuration; 78 a directory or group is missing or can't be used.

    For example:

        vhostcomm serve --config vhostcomm.toml
        vhostcomm serve --sock d990d22a-e971-ef5f-a7b3-e6374e496b34
        vhostcomm serve --sock nas=/run/vhostcomm/nas               # as root
        vhostcomm serve --sock nas=$XDG_RUNTIME_DIR/vhostcomm/nas   # as a user
        vhostcomm serve --sock connect:/run/guests/nas
        vhostcomm serve --sock tcp:127.0.0.1:12345
        vhostcomm serve --watch /run/guests
        vhostcomm serve --cluster etcd://host1,host2,host3
    """
    activated = _activated()
    flags = given(settings, verbose=verbose, quiet=quiet)
    if reload_on_change and not config:
        raise UsageError("--reload-on-change: there is no file that could change; give it with --config")
    known = fingerprint(config or ()) if reload_on_change else None

    def read(under: Merged | None = None) -> Config:
        loaded = load(config, socks=sock or (), watch=watch or (), flags=flags, activated=activated, under=under)
        check(loaded)
        return loaded

    membership = cluster.membership() if cluster and cluster.cluster else None
    reading = partial(membership.read, read) if membership else read
    loaded = reading()
    import trio

    from vhostcomm.daemon.changes import Changes
    from vhostcomm.daemon.daemon import Daemon
    from vhostcomm.log.logs import FLUSH_TIMEOUT, start_log
    from vhostcomm.systemd.notify import Notifier

    log, sink = start_log(loaded.service.log_level, loaded.service.log_format)
    try:
        daemon = Daemon(
            loaded,
            log,
            reading if config or membership else None,
            notifier=Notifier.of_environment(),
            changes=Changes(config, known) if config and known else None,
            membership=membership,
            by_hand=sys.stdout is not None and sys.stdout.isatty(),
        )
        trio.run(daemon.run_with_signals)
    finally:
        sink.close(FLUSH_TIMEOUT)


def _activated() -> list[Sock]:
    """The listening sockets that systemd passed (sd_listen_fds), named by systemd or by their paths."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    try:
        count = int(os.environ.get("LISTEN_FDS", "0"))
    except ValueError:
        count = -1
    if count < 0:
        raise ConfigError(
            f"LISTEN_FDS in the environment is {os.environ['LISTEN_FDS']!r}, but must be a number; systemd sets it: "
            "without systemd, unset LISTEN_PID"
        )
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for place in range(count):
        fd = _FIRST_FD + place
        where = _listens_at(fd)
        label = names[place] if place < len(names) else ""
        # Without FileDescriptorName= systemd gives the socket unit's own name.
        name = Path(where).name if not label or label.endswith(".socket") or label == "unknown" else label
        try:
            values.name(name)
        except ValueError as error:
            raise ConfigError(
                f"systemd's socket {where}: its name {name!r} can't be a guest's ({error}): set FileDescriptorName="
            ) from None
        found.append(Sock(name, Activated(fd, where), values.uuid_of(name)))
    return found


def _listens_at(fd: int) -> str:
    """Return the address of a listening socket that systemd passed."""
    refused = ConfigError(
        f"file descriptor {fd} from systemd is not a listening stream socket: use ListenStream= and Accept=no"
    )
    try:
        os.set_inheritable(fd, False)
        # socket.socket() closes the descriptor of a file that is no socket, so its kind is read from stat.
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise refused
    except OSError as error:
        raise ConfigError(
            f"file descriptor {fd} from systemd can't be used: {error.strerror}; LISTEN_FDS counts it"
        ) from None
    with socket.socket(fileno=os.dup(fd)) as duplicate:
        if duplicate.type != socket.SOCK_STREAM or not duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise refused
        at = duplicate.getsockname()
    match at:
        case str():
            return at
        case bytes():  # an abstract one, which begins with a NUL
            return "@" + at[1:].decode(errors="backslashreplace")
        case _:
            return f"{at[0].replace(':', '_')}-{at[1]}"

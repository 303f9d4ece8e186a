"""Unix and TCP sockets: bind them safely, and remove them. Without trio."""

from __future__ import annotations

import errno
import grp
import os
import select
import shlex
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from vhostcomm.channel.file_errors import error_of, give, leads_to, owner, remedy, suggesting_another
from vhostcomm.channel.locks import locked
from vhostcomm.config.address import Activated, Listen, ListenTcp, host_and_port
from vhostcomm.errors import PlaceError, ServeError

BACKLOG: Final = 8
"""Connections that may wait: one of QEMU, and those to refuse."""

_TCP_DROP_IN: Final = (
    "under systemd, a drop-in of the unit (`systemctl edit UNIT`) allows it: [Service] PrivateNetwork=no "
    "RestrictAddressFamilies=AF_INET AF_INET6 IPAddressAllow=localhost, each on a line of its own"
)


class Listener:
    """A non-blocking listening socket. The path of a unix socket is locked, and `close` removes its file.

    `mode` and `group` are a unix socket's; -1 changes no group. `name` is the guest's, for the error of a wrong place.

    Raises:
        ServeError: it can't be bound; says why and what to do. Nothing was changed.
    """

    __slots__ = ("_cleanup", "_closed", "_file", "_group", "_mode", "_name", "address", "sock")

    def __init__(
        self, address: Listen | ListenTcp | Activated, mode: int = 0o600, group: int = -1, name: str = ""
    ) -> None:
        self.address = address
        self._name = name
        self._mode = mode
        self._group = group
        self._file: os.stat_result | None = None
        self._closed = False
        with ExitStack() as cleanup:
            match address:
                case Listen(path):
                    with suggesting_another(path, name or path.name):
                        cleanup.enter_context(locked(path))
                        self.sock, self._file = _bind(path, mode, group)
                case ListenTcp():
                    self.sock = _bind_tcp(address)
                case Activated(fd):
                    # A copy: systemd's own socket stays open, to be served again later.
                    self.sock = _made(str(address), lambda: socket.socket(fileno=os.dup(fd)))
                    self.sock.setblocking(False)
            self._cleanup = cleanup.pop_all()

    def close(self) -> None:
        """Close the socket. A second call does nothing."""
        self._closed = True
        if isinstance(self.address, Listen) and self._file:
            _unlink(self.address.path, self._file)
        self.sock.close()
        self._cleanup.close()

    def is_reachable(self) -> bool:
        """Return whether clients can find the socket at its path, if it has one. May block."""
        return not isinstance(self.address, Listen) or not self._file or leads_to(self.address.path, self._file)

    def replace(self) -> socket.socket:
        """Create the socket again after its file was deleted. Return the old one, which the caller closes.

        Raises:
            ServeError: something else is at its path now, or the socket can't be created.
        """
        assert isinstance(self.address, Listen)
        old = self.sock
        path = self.address.path
        with suggesting_another(path, self._name or path.name):
            self.sock, self._file = _bind(path, self._mode, self._group)
        if self._closed:  # while the file system hung
            self.close()
        return old


def _bind(path: Path, mode: int, group: int) -> tuple[socket.socket, os.stat_result]:
    """Bind a listening unix socket; return it with its file's status. The path must be locked."""
    _clear(path)
    with ExitStack() as cleanup:
        made = cleanup.enter_context(
            _made(str(path), lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        )
        # bind() creates the file with the socket's own mode, so other users never have access.
        os.fchmod(made.fileno(), 0o600)
        try:
            made.bind(str(path))
            ours = os.lstat(path)
            cleanup.callback(_unlink, path, ours)
            if group != -1:
                give(path, group)
            made.listen(BACKLOG)
            path.chmod(mode)  # always, since clients that watch the directory try again at this event
        except OSError as error:
            raise error_of(error)(f"{path}: the socket can't be made: {error.strerror}{remedy(path, error)}") from None
        cleanup.pop_all()
    return made, ours


def _made(where: str, make: Callable[[], socket.socket]) -> socket.socket:
    try:
        return make()
    except OSError as error:
        raise ServeError(f"{where}: a socket can't be made: {error.strerror}") from None


def _unlink(path: Path, ours: os.stat_result) -> None:
    """Remove our own socket, but not one that replaced it."""
    with suppress(OSError):
        if leads_to(path, ours):
            path.unlink()


def _clear(path: Path) -> None:
    """Remove a stale socket at the path, and nothing else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise error_of(error)(f"{path}: {error.strerror}{remedy(path, error)}") from None
    if not stat.S_ISSOCK(found.st_mode):
        kind = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory"}.get(stat.S_IFMT(found.st_mode), "a file")
        raise ServeError(f"{path}: {kind} is in the place of the socket; move it away, or choose another path")
    if _alive(path):
        raise ServeError(
            f"{path}: another process already listens there; if that is QEMU (server=on), use connect:{path}; "
            f"else stop it: `fuser {shlex.quote(str(path))}` names it"
        )
    with suppress(FileNotFoundError):
        path.unlink()


def _alive(path: Path) -> bool:
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    with _made(str(path), lambda: socket.socket(socket.AF_UNIX, kind)) as trial:
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # its backlog is full
            return True
        except OSError as error:
            whose = owner(path)
            what = f"; it belongs to {whose}: run as that user, or choose another socket" if whose else ""
            raise ServeError(
                f"{path}: can't find out whether a process listens there: {error.strerror}{what}"
            ) from None
    return True


def _bind_tcp(where: ListenTcp) -> socket.socket:
    if not _allows_tcp():
        raise PlaceError(f"{where}: TCP is forbidden here: {os.strerror(errno.EAFNOSUPPORT)}; {_TCP_DROP_IN}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ServeError(
            f"{where}: the host's name can't be resolved: {error.strerror}; use an IP address of this machine"
        ) from None
    with ExitStack() as cleanup:
        made = cleanup.enter_context(
            _made(str(where), lambda: socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol))
        )
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(address)
            made.listen(BACKLOG)
        except OSError as error:
            raise ServeError(f"{where}: can't be bound: {error.strerror}") from None
        cleanup.pop_all()
    return made


def _allows_tcp() -> bool:
    """Return whether this process may create TCP sockets: RestrictAddressFamilies= of our units denies it."""
    try:
        socket.socket(socket.AF_INET).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


def keep_alive(sock: socket.socket) -> None:
    """Make the kernel end a TCP connection whose peer has vanished, because it occupies the guest's only session."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def has_hung_up(sock: socket.socket, *, half: bool = True) -> bool:
    """Return whether the other end has closed, or with `half` only stopped sending, even if data was not read yet."""
    poller = select.poll()
    poller.register(sock, select.POLLRDHUP)
    wanted = select.POLLHUP | select.POLLERR | (select.POLLRDHUP if half else 0)
    return any(event & wanted for _, event in poller.poll(0))


def group_id(name: str, source: str = "socket_group") -> int:
    """Return a group's id by its name or number; -1 for none.

    Args:
        name: the group's.
        source: of the setting, for the error.

    Raises:
        PlaceError: there is no such group.
    """
    if not name:
        return -1
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise PlaceError(f"{source}: there is no group {name!r}; see getent group") from None


def peer(sock: socket.socket) -> dict[str, object]:
    """Describe the peer as the kernel reports it: the process of a unix socket, the address of a TCP socket."""
    with suppress(OSError):
        if sock.family == socket.AF_UNIX:
            pid = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
            return {"pid": pid}
        name = sock.getpeername()
        return {"peer": host_and_port(name[0], name[1])}
    return {}


def make_folder(folder: Path, group: int = -1) -> None:
    """Create the runtime directory if it is missing, in an existing parent, with access for the group.

    Raises:
        ServeError: it can't be created, or is not safe to use.
    """
    try:
        try:
            # 0710 gives the group access to the sockets, which have their own modes.
            folder.mkdir(mode=0o700 if group == -1 else 0o710)
        except FileExistsError:
            _adopt_folder(folder, group)
        else:
            if group != -1:
                give(folder, group)
    except OSError as error:
        raise error_of(error)(f"{folder}: can't be made: {error.strerror}{remedy(folder, error)}") from None


def _adopt_folder(folder: Path, group: int) -> None:
    """Use an existing runtime directory: if a daemon without a group made it, give the group access."""
    found = os.lstat(folder)
    through = found.st_mode & stat.S_IXOTH or (found.st_gid == group and found.st_mode & stat.S_IXGRP)
    opens = group != -1 and found.st_uid == os.geteuid() and not through
    if not stat.S_ISDIR(found.st_mode):
        raise PlaceError(f"{folder}: not a directory, and sockets without a path belong into it; move it away")
    if found.st_uid not in {0, os.geteuid()}:
        raise PlaceError(
            f"{folder}: it belongs to {owner(folder)}, who could replace the sockets in it: "
            f"choose another with RUNTIME_DIRECTORY=, or chown {os.geteuid()} {shlex.quote(str(folder))}"
        )
    # If the directory is opened to the configured group, remove the group's write permission.
    if found.st_mode & (stat.S_IWOTH if opens else stat.S_IWOTH | stat.S_IWGRP):
        raise PlaceError(
            f"{folder}: others can write to it (mode {stat.S_IMODE(found.st_mode):04o}), and so could replace the "
            f"sockets in it: chmod go-w {shlex.quote(str(folder))}"
        )
    if opens:
        give(folder, group)
        folder.chmod(stat.S_IMODE(found.st_mode) & ~stat.S_IRWXG | stat.S_IXGRP)

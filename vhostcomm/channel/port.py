"""One guest's port: its socket, with one session at a time."""

from __future__ import annotations

import errno
import os
import random
import resource
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import trio
from attrs import define, field

from vhostcomm.channel.asker import Asker
from vhostcomm.channel.frame_tap import Recording
from vhostcomm.channel.guest import Guest
from vhostcomm.channel.session import Session
from vhostcomm.channel.sockets import Listener, group_id, keep_alive, peer
from vhostcomm.channel.throttle import CONNECTION, Lane, Throttle
from vhostcomm.config.address import Connect, Listen, ListenTcp, host_and_port
from vhostcomm.config.models import Service
from vhostcomm.errors import ServeError
from vhostcomm.guest.events import Gone
from vhostcomm.linux.threads import connect, in_thread, unless_it_hangs

ACCEPT_PAUSE: Final = 0.2
"""Seconds before the next attempt if there is no descriptor or memory for a connection."""

CLOSE_TIMEOUT: Final = 3.0
"""Seconds for removing the socket's file, and for writing the recording. Only a hanging file system takes longer."""

RECONNECT_FIRST: Final = 0.1
RECONNECT_MAX: Final = 5.0
"""Seconds between attempts to connect to an absent QEMU: doubled up to this maximum."""

SPARE: Final = 256
"""Descriptors to reserve for the latest guests and everything else: at most this many, and a sixteenth of the limit."""

_SHORTAGES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def _scarce() -> int:
    """Return the first of the reserved descriptors. The kernel always assigns the lowest free one."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit - min(SPARE, limit // 16)


@define(eq=False)
class Port:
    """A guest's channel, from binding to closing. It serves one connection at a time.

    `open` binds the socket and creates the recording's file, so that errors appear before anything runs.
    """

    guest: Guest
    _service: Service
    _lane: Lane = field(factory=Lane)
    _throttle: Throttle | None = field(init=False)
    _session_ended: trio.Event = field(factory=trio.Event, init=False)
    _listener: Listener | None = field(default=None, init=False)
    _recording: Recording | None = field(default=None, init=False)
    _accepting: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _stopping: bool = field(default=False, init=False)
    _short: bool = field(default=False, init=False)
    _refused: int = field(default=0, init=False)
    asker: Asker = field(init=False)
    """Sends questions to the guest."""
    retry_now: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        frame_rate = self._service.frame_rate
        self._throttle = Throttle(frame_rate, self._lane) if frame_rate else None
        self.asker = Asker(self.guest)

    def open(self, *, bind: bool = True) -> None:
        """Bind the socket and create the recording. It may block, so use a thread while other guests are served.

        Without `bind`, `take_over` provides the socket.

        Raises:
            ServeError: something is unavailable; nothing stays open.
        """
        with ExitStack() as cleanup:
            address = self.guest.address
            if bind and not isinstance(address, Connect):
                made = Listener(
                    address, self._service.socket_mode, group_id(self._service.socket_group), self.guest.name
                )
                cleanup.callback(made.close)
                self._listener = made
            if self._service.record:
                path = Path(self._service.record.replace("{guest}", self.guest.name))
                self._recording = Recording(path, self._service.record_limit, self.guest.name, self.guest.log)
            cleanup.pop_all()

    def reopen_recording(self) -> None:
        """Begin a new file if the current recording was renamed or deleted."""
        if self._recording:
            self._recording.reopen()

    async def run(self) -> None:
        """Serve until `stop`; `open` has to be called before. Closes socket and recording at the end."""
        try:
            async with trio.open_nursery() as nursery:
                self.asker.nursery = nursery
                with self._accepting:
                    if isinstance(self.guest.address, Connect):
                        await self._keep_connecting(nursery)
                    else:
                        await self._keep_accepting(nursery)
        finally:
            with trio.CancelScope(shield=True):
                if self._listener:
                    await unless_it_hangs(self._folder, self._close_listener, CLOSE_TIMEOUT)
                if self._recording:  # may be on another file system, and waits for its own writer
                    await unless_it_hangs(self, self._close_recording, CLOSE_TIMEOUT)

    def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener:
            listener.close()

    def _close_recording(self) -> None:
        recording, self._recording = self._recording, None
        if recording:
            recording.close()

    def discard(self) -> None:
        """Close a port that was opened but never run, and remove its empty recording."""
        self._close_listener()
        recording, self._recording = self._recording, None
        if recording:
            recording.discard()

    def stop(self) -> None:
        """Accept no more connections, answer the pending questions of the current one, and end."""
        self._stopping = True
        self._accepting.cancel()
        if self.asker.session:
            self.asker.session.drain()

    def take_over(self, other: Port) -> None:
        """Take over the socket of a port that ends; it keeps listening."""
        self._listener, other._listener = other._listener, None
        other._accepting.cancel()

    def is_reachable(self) -> bool:
        """Return whether QEMU can find the socket at its path, if it has one. May block."""
        return self._listener is None or self._listener.is_reachable()

    def is_occupied(self) -> bool:
        """Return whether anything exists at the path of its socket. May block."""
        return isinstance(self.guest.address, Listen) and os.path.lexists(self.guest.address.path)

    async def bind_again(self) -> None:
        """Create the socket again after its file was deleted. An open connection continues.

        Raises:
            ServeError: it can't be created.
        """
        if (listener := self._listener) is None:
            return
        old = await in_thread(self._folder, listener.replace)
        if old.fileno() != -1:
            trio.lowlevel.notify_closing(old)
            old.close()
        if self._listener is not listener:  # replaced or closed meanwhile
            await in_thread(self._folder, listener.close)

    @property
    def _folder(self) -> Path | None:
        """The directory of its socket's file; None without a file."""
        address = self.guest.address
        return address.path.parent if isinstance(address, Listen) else None

    # -- QEMU connects

    async def _keep_accepting(self, nursery: trio.Nursery) -> None:
        assert self._listener
        shown = str(self.guest.address)
        if isinstance(self.guest.address, ListenTcp):
            host, port, *_ = self._listener.sock.getsockname()
            shown = f"tcp:{host_and_port(host, port)}"
        self.guest.log.info("waiting for QEMU", sock=shown)
        if self._listener.sock.fileno() == -1:  # the port before has lent it
            await self.bind_again()
        while self._listener is not None:  # until another port takes it over
            listener = self._listener.sock
            try:
                await trio.lowlevel.wait_readable(listener)
            except trio.ClosedResourceError:  # bound again
                continue
            if (sock := await self._accept(listener)) is None:
                continue
            self._short = False
            sock.setblocking(False)
            keep_alive(sock)
            taken = False
            try:
                if taken := await self._has_room(sock):
                    self._attend(sock, nursery)
            finally:
                if not taken:
                    sock.close()
            if taken and isinstance(self.guest.address, Listen) and sock.fileno() >= _scarce():
                await self._lend_listener(listener)

    async def _accept(self, listener: socket.socket) -> socket.socket | None:
        """Accept a connection when it is the guest's turn. Return None if there is none, or no descriptor for it."""
        if self._throttle and self._throttle.ready():
            await self._throttle.enter()
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return None
        except OSError as error:
            problem = error
        else:
            return sock
        finally:
            if self._throttle:
                self._throttle.turned(CONNECTION)
        if listener.fileno() != -1:  # otherwise, it was bound again meanwhile
            await self._pause(problem)
        return None

    async def _lend_listener(self, listener: socket.socket) -> None:
        """Close the listener until the connection ends, to free its descriptor. A second connection is refused then."""
        listener.close()
        await self._session_ended.wait()
        while True:
            try:
                await self.bind_again()
            except ServeError as error:
                await self._pause(OSError(0, str(error)))
            else:
                return

    async def _has_room(self, sock: socket.socket) -> bool:
        """Return whether the port is free for a connection."""
        if self.asker.session and self.asker.session.is_dead():
            # QEMU was restarted, and the end of its last connection has not been read yet.
            self.asker.session.abandon()
            await self._session_ended.wait()
        if self.asker.session is None:
            return True
        self._refused += 1
        if self._refused == 1:
            self.guest.connection_log.warning(
                "connection refused",
                why="another one is live; QEMU retries every second, so check which of the two is the guest's",
                **peer(sock),
            )
        return False

    async def _pause(self, error: OSError) -> None:
        if not self._short:
            self._short = True
            self.guest.log.error(
                "connection waits for a descriptor or memory",
                why=error.strerror,
                remedy="raise LimitNOFILE= or `ulimit -n`" if error.errno in _SHORTAGES else None,
            )
        await trio.sleep(ACCEPT_PAUSE)

    # -- vhostcomm connects to QEMU

    async def _keep_connecting(self, nursery: trio.Nursery) -> None:
        address = self.guest.address
        assert isinstance(address, Connect)
        wait, logged = RECONNECT_FIRST, ""
        while True:
            try:
                sock = await connect(address.path)
            except OSError as error:
                why = str(error.strerror)
                if why != logged:
                    logged = why
                    self._unreachable(address.path, why, refused=error.errno in {errno.EACCES, errno.EPERM})
                self.retry_now = trio.Event()
                with trio.move_on_after(wait * random.uniform(0.9, 1.1)) as pause:  # noqa: S311 - spreads load
                    await self.retry_now.wait()
                wait = min(wait * 2, RECONNECT_MAX) if pause.cancelled_caught else RECONNECT_FIRST
                continue
            logged = ""
            self._attend(sock, nursery)
            began = trio.current_time()
            await self._session_ended.wait()
            # A server that accepts connections only to close them must not cause a busy loop.
            wait = RECONNECT_FIRST if trio.current_time() - began > RECONNECT_MAX else min(wait * 2, RECONNECT_MAX)
            await trio.sleep(wait)

    def _unreachable(self, path: Path, why: str, *, refused: bool) -> None:
        self.guest.unreachable = why
        if refused:
            remedy = "give the daemon's user access, by the group or mode of the socket and its directory; SELinux and AppArmor can reject too"
            self.guest.unreachable = f"{why}; {remedy}"
            self.guest.log.warning("QEMU's socket denies access", sock=str(path), why=why, remedy=remedy)
        else:
            self.guest.log.info("waiting for QEMU's socket", sock=str(path), why=why)

    # -- a session

    def _attend(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        self._refused = 0
        session = self.asker.session = Session(self.guest, sock, self._service, self._throttle, self._recording)
        self._session_ended = trio.Event()
        self.guest.connected(**peer(sock))
        if self._stopping:
            session.drain()
        nursery.start_soon(self._serve, session)

    async def _serve(self, session: Session) -> None:
        end = Gone("the daemon stops", by_us=True)
        try:
            end = await session.run()
        except Exception:
            # Any error in serving one guest ends only its connection, and QEMU reconnects.
            end = Gone("an error of vhostcomm's own", by_us=True)
            self.guest.log.exception("internal error, closing the connection; please report it")
        finally:
            self.asker.session = None
            self.guest.gone(end)
            self._session_ended.set()

"""The sending half of one connection: whole frames, in order, dropped where nobody reads them."""

from __future__ import annotations

import socket

import trio

from vchannel import FRAME_SIZE
from vhostcomm.channel.guest import Guest
from vhostcomm.channel.tap import Tap


class GoneError(Exception):
    """The connection is no more; the message says why."""


class Sender:
    """Sends frames over a socket.

    Args:
        guest: whose it is; its dropped answers are counted.
        sock: connected, not blocking.
        timeout: seconds for frames to be read.
        tap: looks at every frame.
    """

    __slots__ = ("_guest", "_lock", "_rest", "_sock", "_tap", "_timeout")

    def __init__(self, guest: Guest, sock: socket.socket, timeout: float, tap: Tap | None) -> None:
        self._guest = guest
        self._sock = sock
        self._timeout = timeout
        self._tap = tap
        self._rest = b""  # of a frame that was cut by a deadline: must go out before any other
        self._lock = trio.Lock()

    @property
    def is_stuck(self) -> bool:
        """Whether earlier frames wait to be written, because neither QEMU nor the guest reads."""
        return bool(self._rest) or self._lock.locked()

    async def send(self, frames: bytes) -> None:
        """Send whole frames, in one write where the kernel takes them.

        Raises:
            GoneError: the connection ended.
        """
        sent = self.begin(frames)
        if sent < len(frames):
            await self.finish(frames, sent)

    async def send_rest(self) -> None:
        """Complete a frame that was cut.

        Raises:
            GoneError: the connection ended.
        """
        if self._rest:
            await self.finish(b"", 0)

    def begin(self, frames: bytes) -> int:
        """Write what the kernel takes now. Returns how many bytes; where these are not all, `finish` must follow at once.

        Raises:
            GoneError: the connection ended.
        """
        if self._tap:
            self._tap.sent(frames)
        return 0 if self._rest or self._lock.locked() else self._write(frames)

    async def finish(self, frames: bytes, sent: int) -> None:
        """Send what `begin` left, as the guest reads; drop whole frames after the deadline.

        Raises:
            GoneError: the connection ended.
        """
        deadline = trio.CancelScope(deadline=trio.current_time() + self._timeout)
        with deadline:
            if self._lock.locked():
                await self._wait_turn(frames)
            else:
                # At once: a frame may be cut, and nobody else may write until it is whole.
                self._lock.acquire_nowait()
            await self._send_slowly(frames, sent)
        if deadline.cancelled_caught:
            self._drop_whole_frames()
            self._guest.lines.repeated(
                "guest does not read its answers, they are dropped", dropped=self._guest.dropped_answers
            )

    async def _wait_turn(self, frames: bytes) -> None:
        """Wait until another's frames are out; these are dropped if that takes too long."""
        waiting = len(frames) // FRAME_SIZE
        self._guest.dropped_answers += waiting
        await self._lock.acquire()
        self._guest.dropped_answers -= waiting

    async def _send_slowly(self, frames: bytes, sent: int) -> None:
        """Send as the guest reads, with the lock held; releases it."""
        data, self._rest = self._rest + frames, b""
        try:
            while sent < len(data):
                if self._sock.fileno() < 0:  # closed while it was another's turn
                    raise GoneError("it was closed")
                try:
                    await trio.lowlevel.wait_writable(self._sock)
                except trio.ClosedResourceError:
                    raise GoneError("it was closed") from None
                sent += self._write(data[sent:])
        finally:
            self._rest = data[sent:]
            self._lock.release()

    def _drop_whole_frames(self) -> None:
        """After the deadline: the frame that was cut must be completed, whole ones behind it are dropped."""
        # What is left ends with a whole frame, so frames are counted from its end.
        dropped, cut = divmod(len(self._rest), FRAME_SIZE)
        self._guest.dropped_answers += dropped
        self._rest = self._rest[:cut]

    def _write(self, data: bytes) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise GoneError(f"the connection broke: {error.strerror}") from None

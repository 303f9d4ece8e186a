"""Send on one connection: whole frames, in order; drop them if the peer does not read."""

from __future__ import annotations

import socket

import trio

from vchannel import FRAME_SIZE
from vhostcomm.channel.frame_tap import Tap
from vhostcomm.channel.guest import Guest


class GoneError(Exception):
    """The connection ended; the message is the reason."""


class Sender:
    """Sends frames over a connected, non-blocking socket. The peer has `timeout` seconds to read them.

    The methods that send count dropped answers of the guest, and raise `GoneError` if the connection has ended.
    """

    __slots__ = ("_guest", "_lock", "_rest", "_sock", "_tap", "_timeout")

    def __init__(self, guest: Guest, sock: socket.socket, timeout: float, tap: Tap) -> None:
        self._guest = guest
        self._sock = sock
        self._timeout = timeout
        self._tap = tap
        self._rest = b""  # of a frame cut by a deadline: must be sent before any other
        self._lock = trio.Lock()

    @property
    def is_stuck(self) -> bool:
        """Return whether earlier frames are still unsent, because neither QEMU nor the guest reads."""
        return bool(self._rest) or self._lock.locked()

    async def send(self, frames: bytes) -> None:
        """Send whole frames, with one write if the kernel accepts all."""
        sent = self.begin(frames)
        if sent < len(frames):
            await self.finish(frames, sent)

    async def send_rest(self) -> None:
        """Complete a cut frame."""
        if self._rest:
            await self.finish(b"", 0)

    def begin(self, frames: bytes) -> int:
        """Write as much as the kernel accepts now. Return its size; if that is not all, `finish` must follow at once."""
        if self._tap.is_observed:
            self._tap.sent(frames)
        return 0 if self._rest or self._lock.locked() else self._write(frames)

    async def finish(self, frames: bytes, sent: int) -> None:
        """Send the rest after `begin`, as the guest reads; drop whole frames after the deadline."""
        deadline = trio.CancelScope(deadline=trio.current_time() + self._timeout)
        with deadline:
            if self._lock.locked():
                await self._wait_turn(frames)
            else:
                # At once: a frame may be cut, so no other task may write until it is complete.
                self._lock.acquire_nowait()
            await self._send_slowly(frames, sent)
        if deadline.cancelled_caught:
            self._drop_whole_frames()
            self._guest.lines.repeated("guest does not read, dropping answers", dropped=self._guest.dropped_answers)

    async def _wait_turn(self, frames: bytes) -> None:
        """Wait until another task's frames are sent; drop these frames if that takes too long."""
        waiting = len(frames) // FRAME_SIZE
        self._guest.dropped_answers += waiting
        await self._lock.acquire()
        self._guest.dropped_answers -= waiting

    async def _send_slowly(self, frames: bytes, sent: int) -> None:
        """Send as the guest reads, with the lock held; release the lock at the end."""
        data, self._rest = self._rest + frames, b""
        try:
            while sent < len(data):
                if self._sock.fileno() < 0:  # closed while another task ran
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
        """After the deadline, keep the cut frame, which must be completed, and drop the whole frames after it."""
        # The data ends with a whole frame, so count from its end.
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

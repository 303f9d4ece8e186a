"""Recordings that clients start and stop while guests are served, beside those of the setting `record`."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio
from attrs import define

from vhostcomm.capture.format import format_capture
from vhostcomm.capture.reading import read_capture
from vhostcomm.capture.redact_capture import redact
from vhostcomm.channel.frame_tap import FLUSH_TIMEOUT, Recording
from vhostcomm.channel.guest import Guest
from vhostcomm.channel.sockets import make_folder
from vhostcomm.config.address import runtime_directory
from vhostcomm.errors import ServeError
from vhostcomm.linux.threads import in_thread, made_in_thread, short_turns
from vhostcomm.log.logs import Log

LIMIT: Final = 8 << 20
"""Bytes of a recording: thousands of frames, and little enough to be redacted in a moment."""

READ_TIMEOUT: Final = 1.0
"""Seconds that a client waits until the frames so far are in the file."""

CLOSE_TIMEOUT: Final = FLUSH_TIMEOUT + 1
"""Seconds that the end of a recording takes at most, also where its file system hangs."""


@define(eq=False)
class LiveRecording:
    """A guest's recording that a client started."""

    guest: Guest
    recording: Recording
    started: float
    """Seconds since 1970."""
    active: bool = True
    """False once a client stopped it, or it was replaced."""


class Recordings:
    """The last recording of each guest that a client started.

    Args:
        is_served: whether a guest is still served.
    """

    def __init__(self, log: Log, is_served: Callable[[Guest], bool]) -> None:
        self._log = log
        self._is_served = is_served
        self._live: dict[str, LiveRecording] = {}
        self._changing = trio.Lock()  # a file is made meanwhile: two clients at once would lose one recording

    def of(self, guest: Guest) -> LiveRecording | None:
        """Return the last recording of a guest."""
        return self._live.get(guest.name)

    async def start(self, guest: Guest, by: str) -> LiveRecording:
        """Begin a recording in a new file.

        Raises:
            ServeError: one is running, or the file can't be made.
        """
        async with self._changing:
            await self.close(lambda each: not self._is_served(each.guest))
            if (known := self.of(guest)) and known.active and not known.recording.ended:
                raise ServeError(f"{guest.name}: a recording is running, into {known.recording.path}")
            if known:
                await self._close(known)
            folder, is_ours = _folder()
            path = folder / f"{guest.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"
            self._log.info("recording requested", guest=guest.name, by=by)

            def make() -> Recording:
                if is_ours:
                    make_folder(folder)
                return Recording(path, LIMIT, guest.name, guest.log)

            recording = await made_in_thread(folder, make, Recording.discard)
            made = self._live[guest.name] = LiveRecording(guest, recording, datetime.now(UTC).timestamp())
            guest.traces.append(recording)
            return made

    async def stop(self, guest: Guest) -> LiveRecording | None:
        """End a guest's recording. Return the last one, if any."""
        async with self._changing:
            if found := self.of(guest):
                await self._close(found)
            return found

    async def text(self, guest: Guest, *, redacted: bool) -> str | None:
        """Return a guest's last recording up to now; None if there is none.

        Raises:
            OSError: its file can't be read any more.
            CaptureError: its file was changed.
        """
        if (found := self.of(guest)) is None:
            return None
        path = found.recording.path

        def read() -> str:
            if found.active:
                found.recording.flush(READ_TIMEOUT)
            text = path.read_text(encoding="utf-8", errors="backslashreplace")
            text = text[: text.rfind("\n") + 1]  # a record may be half written
            if not redacted:
                return text
            return "".join(format_capture(redact(read_capture(text.splitlines(keepends=True), str(path)))))

        with short_turns():
            return await in_thread(path.parent, read)

    async def close(self, which: Callable[[LiveRecording], bool] = lambda _: True) -> None:
        """End recordings, by default all. Limited in time."""
        async with trio.open_nursery() as nursery:
            for each in filter(which, self._live.values()):
                nursery.start_soon(self._close, each)

    async def _close(self, live: LiveRecording) -> None:
        if live.active:
            live.active = False
            live.guest.traces.remove(live.recording)
            live.recording.complete()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT):
                await in_thread(live.recording.path.parent, live.recording.close)


def _folder() -> tuple[Path, bool]:
    """Return the directory of these recordings, and whether it is ours to make.

    It is systemd's for logs or state, which exists, else the runtime directory.

    Raises:
        ServeError: there is none.
    """
    for variable in ("LOGS_DIRECTORY", "STATE_DIRECTORY"):
        if given := os.environ.get(variable):
            return Path(given.partition(":")[0]), False
    try:
        return runtime_directory(), True
    except ValueError as error:
        raise ServeError(f"no directory for a recording: {error}") from None

"""Run an operator's programs at events. Nothing waits for them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from vhostcomm.linux.children import kill_group, program, program_ended
from vhostcomm.linux.system_errors import NO_THREAD, explain, is_thread_refusal
from vhostcomm.log.logs import LimitedLog, Log
from vhostcomm.text import TEXT_LIMIT, printable

EVENTS: Final = ("ready", "stopping", "stopped", "rebooted", "crashed")

PREFIX: Final = "VHOSTCOMM_HOOK_"

TIMEOUT: Final = 60.0
"""Seconds after which a hook and its process group are killed."""

RUNNING_LIMIT: Final = 16
"""Maximum hooks at the same time; a guest that reboots in a loop must not fill the host with them."""

LAST_OUTPUT: Final = 0.5
"""Seconds to read the rest of a hook's output after its end."""

OUTPUT_SHOWN: Final = TEXT_LIMIT
"""Characters from the end of a failed hook's output to log. The log would cut off the end of a longer text."""


class Hooks:
    """Runs the programs of events.

    A hook's environment has VHOSTCOMM_HOOK_EVENT and a VHOSTCOMM_HOOK_… variable for each fact, without our secrets.
    When a hook ends, the rest of its process group is killed.

    Args:
        programs: (event, program) pairs; a program is a path, without a shell.
        facts: for every hook's environment.
        log: for failures.
    """

    def __init__(self, programs: Sequence[tuple[str, str]], facts: Mapping[str, str], log: Log) -> None:
        self._programs = programs
        self._facts = facts
        self._log = LimitedLog(log)  # a guest can start again as often as it likes
        self._running = 0
        self._idle = trio.Event()
        self.nursery: trio.Nursery | None = None
        """Where hooks run; before it is set, none does."""

    def happened(self, event: str, **facts: str) -> None:
        """Start the programs of an event."""
        for name, path in self._programs:
            if name != event or self.nursery is None:
                continue
            if self._running >= RUNNING_LIMIT:
                self._log.warning("hook skipped", on=event, program=path, why=f"{self._running} already run")
                continue
            self._running += 1
            self.nursery.start_soon(self._run, event, path, {"event": event} | dict(self._facts) | facts)

    async def finish(self, timeout: float) -> None:
        """Wait for running hooks, for at most `timeout` seconds."""
        with trio.move_on_after(timeout) as deadline:
            while self._running:
                self._idle = trio.Event()
                await self._idle.wait()
        if deadline.cancelled_caught:
            self._log.warning("hooks killed at the end", running=self._running)

    async def _run(self, event: str, path: str, facts: Mapping[str, str]) -> None:
        variables = {f"{PREFIX}{name.upper()}": value for name, value in facts.items()}
        try:
            async with program(
                [path], added=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            ) as process:
                assert process.stdout
                tail = bytearray()
                async with process.stdout, trio.open_nursery() as nursery:
                    nursery.start_soon(_read_tail, process.stdout, tail)
                    with trio.move_on_after(TIMEOUT) as deadline:
                        await program_ended(process)
                    kill_group(process.pid)
                    # A process that left the group may keep the pipe open for ever.
                    nursery.cancel_scope.deadline = trio.current_time() + LAST_OUTPUT
            if deadline.cancelled_caught:
                self._log.warning("hook timed out and was killed", on=event, program=path, seconds=TIMEOUT)
            elif process.returncode:
                said = printable(tail.decode(errors="replace").strip())[-OUTPUT_SHOWN:]
                self._log.warning("hook failed", on=event, program=path, status=process.returncode, output=said)
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_thread_refusal(error):
                raise
            why = explain(error) if isinstance(error, OSError) else NO_THREAD
            self._log.warning("hook can't be run", on=event, program=path, why=why)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()


async def _read_tail(stream: trio.abc.ReceiveStream, tail: bytearray) -> None:
    """Keep the end of a hook's output, which may be endless."""
    async for data in stream:
        tail += data
        del tail[: -4 * OUTPUT_SHOWN]

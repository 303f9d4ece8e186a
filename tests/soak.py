"""Frames of mixed kinds for a long time: nothing is lost, and memory stays constant. ``make soak`` sends a million.

Guests ask at the same time, in batches with notifications, unknown commands, odd frames and junk. Meanwhile, the
configuration is reloaded, guests reconnect, and the daemon is restarted once.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from attrs import frozen

from tests.serving import FakeGuest, Serving, fake_guest
from vchannel import HostCommand, Request

GUESTS: Final = 8
BATCH: Final = 16
FLOOD: Final = 64
"""Frames that are sent before any answer is read: more than a socket's buffer."""

RELOAD_EVERY: Final = 2_000
RECONNECT_EVERY: Final = 5_000
"""Frames."""


@frozen
class Soaked:
    """Results: frames sent, answers received, and resident kilobytes after a quarter and at the end of a daemon's run."""

    frames: int
    answers: int
    resident: list[tuple[int, int]]


def soak(frames: int, folder: Path, seed: int = 1) -> Soaked:
    """Send a number of frames, half of them before a restart of the daemon. Fails if a question is not answered."""
    chance = random.Random(seed)
    sent = answers = serial = 0
    resident = []
    for end in (frames // 2, frames):
        config = folder / "vhostcomm.toml"
        write(config, serial)
        quarter = (sent + end) // 2
        early = 0
        with (
            Serving("--config", config, "--frame-rate", "0", "--control", "none") as daemon,
            ExitStack() as stack,
        ):
            guests = [stack.enter_context(fake_guest(folder / f"g{place}")) for place in range(GUESTS)]
            reload_at, reconnect_at = sent + RELOAD_EVERY, sent + RECONNECT_EVERY
            while sent < end:
                for guest in guests:
                    made, had = exchange(guest, chance, serial)
                    sent, answers = sent + made, answers + had
                if sent >= reload_at:
                    reload_at += RELOAD_EVERY
                    serial += 1
                    write(config, serial)
                    daemon.send_signal(signal.SIGHUP)
                    while guests[0].serial() != serial_of(0, serial):
                        sent, answers = sent + 1, answers + 1
                    for place, guest in enumerate(guests):
                        while guest.serial() != serial_of(place, serial):
                            sent, answers = sent + 1, answers + 1
                if sent >= reconnect_at:
                    reconnect_at += RECONNECT_EVERY
                    place = chance.randrange(GUESTS)
                    guests[place].sock.close()
                    guests[place] = stack.enter_context(fake_guest(folder / f"g{place}"))
                if not early and sent >= quarter:
                    early = resident_of(daemon.process.pid)
            resident.append((early, resident_of(daemon.process.pid)))
    return Soaked(sent, answers, resident)


def exchange(guest: FakeGuest, chance: random.Random, serial: int) -> tuple[int, int]:
    """Send a batch of frames, sometimes after junk. Returns the numbers of sent and answered frames."""
    count = FLOOD if chance.random() < 0.02 else BATCH
    questions = []
    out = bytearray(b"\xff" * chance.choice((1, 63, 100, 4095, 5000)) if chance.random() < 0.05 else b"")
    for _ in range(count):
        command = chance.choice((HostCommand.GUEST_SERIAL, HostCommand.HOST_SERIAL, HostCommand.UPDATE_DEADLINE, 99))
        wants = chance.random() < 0.8
        request = Request.of(command, needs_response=wants)
        if wants:
            questions.append(request)
        out += guest.connection.send(request)
    guest.sock.sendall(out)
    for request in questions:
        guest.answer(request)
    return count, len(questions)


def write(config: Path, serial: int) -> None:
    """Write the guests' configuration. Each reload gives each guest another serial number."""
    config.write_text(
        "".join(
            f'[guests.g{place}]\nsock = "{config.parent}/g{place}"\nserial = "{serial_of(place, serial)}"\n'
            for place in range(GUESTS)
        )
    )


def serial_of(place: int, serial: int) -> str:
    return f"{place}S{serial:011d}"


def resident_of(pid: int) -> int:
    """Return a process's resident memory in kilobytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def main() -> None:
    frames = int(sys.argv[1]) if sys.argv[1:] else 1_000_000
    with tempfile.TemporaryDirectory(prefix="v") as folder:
        sys.stdout.write(f"{soak(frames, Path(folder))}\n")


if __name__ == "__main__":
    main()

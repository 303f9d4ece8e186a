"""The effect of floods from other guests on one guest: its round trips, compared with undisturbed ones of the same run.

One process floods, as a guest does: as fast as the daemon reads. No number is asserted.
"""

from __future__ import annotations

import multiprocessing
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from vchannel import GuestCommand, HostCommand, Request

FLOODERS: Final = 16
SECONDS: Final = 4.0
"""The duration of the measurement for each line."""
SETTLE: Final = 2.0
"""Seconds of a flood before the measurement, long enough to use up the flooding guest's credit."""
PAUSE: Final = 0.02
"""Seconds between two questions of the measured guest. A genuine guest asks less often."""


def answer(data: bytes) -> bytes:
    """Return an unsolicited answer."""
    return Request.of(GuestCommand.GET_INFORMATION, b"").reply(data).raw


KINDS: Final[dict[str, bytes]] = {
    "junk": b"\xa5" * 65536,
    "valid requests": Request.of(HostCommand.GUEST_SERIAL).raw * 16,
    "answers, hostile JSON": answer(b'{"a":[' + b'{"x":1e999,"y":"\\ud800"},' * 150 + b"0]}\0") * 16,
    "answers, deep JSON": answer(b"[" * 2000 + b"]" * 2000 + b"\0") * 16,
    "notifications": Request.of(HostCommand.GUEST_TIMESTAMP, b"1\0", needs_response=False).raw * 16,
    "reboots": (
        Request.of(HostCommand.GUEST_SERIAL).raw
        + Request.of(HostCommand.GUEST_POWER, b"up\0", needs_response=False).raw
    )
    * 8,
}
STORM: Final = "connections"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vhostcomm-bench-") as folder:
        work = Path(folder)
        socks = [str(work / "good"), *(str(work / f"bad{place}") for place in range(FLOODERS))]
        words = [word for sock in socks for word in ("--sock", sock)]
        command = [sys.executable, "-m", "vhostcomm", "serve", "--log-format", "json", "--control", "none", *words]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                while not all(Path(sock).exists() for sock in socks):
                    time.sleep(0.01)
                measure(socks)
            finally:
                process.terminate()


def measure(socks: list[str]) -> None:
    print("daemon: one guest beside others that flood it, with the default --frame-rate")
    quiet = round_trips(socks[0])
    show("undisturbed", quiet, quiet)
    for kind in *KINDS, STORM:
        for count in 1, FLOODERS:
            flood = multiprocessing.Process(target=storm if kind == STORM else send, args=(socks[1 : 1 + count], kind))
            flood.start()
            try:
                time.sleep(SETTLE)
                show(f"{kind}, {count}", round_trips(socks[0]), quiet)
            finally:
                flood.kill()
                flood.join()
    show("undisturbed again", round_trips(socks[0]), quiet)


def show(name: str, times: list[float], quiet: list[float]) -> None:
    cuts, floor = (statistics.quantiles(each, n=100) for each in (times, quiet))
    print(
        f"  {name:28}{cuts[49] * 1e6:9.0f} µs p50 {cuts[98] * 1e6:9.0f} µs p99"
        f" {cuts[49] / floor[49]:6.2f} {cuts[98] / floor[98]:6.2f} times undisturbed",
        flush=True,
    )


def round_trips(path: str) -> list[float]:
    """Return the seconds of each round trip of a guest that asks at intervals."""
    question, times = Request.of(HostCommand.GUEST_SERIAL).raw, []
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(PAUSE)
            begin = time.perf_counter()
            sock.sendall(question)
            left = len(question)
            while left:
                left -= len(sock.recv(left))
            times.append(time.perf_counter() - begin)
    return times


def send(paths: list[str], kind: str) -> None:
    """Send one kind of frames to all sockets without end, and read the answers."""
    data, poll, socks = KINDS[kind], select.epoll(), {}
    for path in paths:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sock.setblocking(False)
        socks[sock.fileno()] = sock, memoryview(data)
        poll.register(sock, select.EPOLLIN | select.EPOLLOUT)
    while True:
        for number, events in poll.poll():
            sock, left = socks[number]
            with suppress(BlockingIOError):
                if events & select.EPOLLIN:
                    sock.recv(1 << 20)
            with suppress(BlockingIOError):
                if events & select.EPOLLOUT:
                    left = left[sock.send(left) :] or memoryview(data)
            socks[number] = sock, left


def storm(paths: list[str], _: str) -> None:
    """Connect to all sockets, ask and disconnect, without end.

    A thread for each socket waits until the daemon accepts. Retries without waiting would compete with the measured guest
    for the processor, and the result would show that competition.
    """
    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(connect_again_and_again, paths))


def connect_again_and_again(path: str) -> None:
    question = Request.of(HostCommand.GUEST_SERIAL).raw
    while True:
        with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
            sock.connect(path)
            sock.send(question)


if __name__ == "__main__":
    main()

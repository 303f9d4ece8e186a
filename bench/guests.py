"""1,000 and 10,000 guests in one daemon, in one run: start, reload, stop, memory, descriptors. No number is asserted.

The daemon has `ulimit -n 20000`. The client asks each guest once, which proves that all are connected.
"""

from __future__ import annotations

import json
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

from vchannel import HostCommand, Request

SIZES: Final = (1_000, 10_000)
DESCRIPTORS: Final = 20_000
FRAME: Final = 4096


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for size in map(int, sys.argv[1:]) if sys.argv[1:] else SIZES:
        with tempfile.TemporaryDirectory(prefix="vhostcomm-bench-") as folder, ExitStack() as stack:
            measure(size, Path(folder), stack)


def measure(size: int, work: Path, stack: ExitStack) -> None:
    config = work / "vhostcomm.toml"
    write(config, size, "A")
    begin = time.perf_counter()
    daemon = stack.enter_context(Daemon(config))
    daemon.wait("serving")
    start = time.perf_counter() - begin
    daemon.settle()
    print(f"daemon: {size:,} guests in one process, with ulimit -n {DESCRIPTORS}")
    print(f"  {'start to serving':28}{start:9.2f} s")
    print(f"  {'all listening':28}{daemon.resident():9.0f} MB {daemon.descriptors():9,} descriptors")
    guests = []
    for place in range(size):
        guest = stack.enter_context(socket.socket(socket.AF_UNIX))
        guest.connect(f"{work}/g{place}")
        guests.append(guest)
    for guest in guests:
        ask(guest)
    print(f"  {'all connected, and answered':28}{daemon.resident():9.0f} MB {daemon.descriptors():9,} descriptors")
    quiet = [ask(guests[place % 7]) for place in range(2000)]
    write(config, size, "B")
    asking = Asking(guests[0])
    began = time.perf_counter()
    daemon.process.send_signal(signal.SIGHUP)
    reloaded = daemon.wait("reloaded")
    took = time.perf_counter() - began
    meanwhile = asking.finish()
    print(f"  {'reload, all of them changed':28}{took:9.2f} s ({reloaded['changed']:,} changed)")
    for name, times in ("undisturbed", quiet), ("during the reload", meanwhile):
        cuts = statistics.quantiles(times, n=100)
        print(
            f"  {'one guest, ' + name:28}{cuts[49] * 1000:9.2f} ms p50 {cuts[98] * 1000:9.2f} ms p99"
            f" {max(times) * 1000:9.2f} ms most ({len(times):,} answers)"
        )
    print(f"  {'after it':28}{daemon.resident():9.0f} MB")
    began = time.perf_counter()
    daemon.stop()
    print(f"  {'stop, all of them connected':28}{time.perf_counter() - began:9.2f} s")


def write(config: Path, size: int, letter: str) -> None:
    """Write a configuration with a number of guests, whose serial numbers begin with the letter."""
    config.write_text(
        "".join(
            f'[guests.g{place}]\nsock = "{config.parent}/g{place}"\nserial = "{letter}{place:012d}"\n'
            for place in range(size)
        )
    )


def ask(guest: socket.socket) -> float:
    """Ask for a guest's serial number; return the seconds until the answer."""
    begin = time.perf_counter()
    guest.sendall(Request.of(HostCommand.GUEST_SERIAL).raw)
    left = FRAME
    while left:
        left -= len(guest.recv(left))
    return time.perf_counter() - begin


class Asking:
    """A thread with a guest that asks again and again."""

    def __init__(self, guest: socket.socket) -> None:
        self._guest = guest
        self._ends = threading.Event()
        self._times: list[float] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.is_set():
            self._times.append(ask(self._guest))

    def finish(self) -> list[float]:
        self._ends.set()
        self._thread.join()
        return self._times


class Daemon:
    """A running `vhostcomm serve` and its log."""

    def __init__(self, config: Path) -> None:
        words = ["serve", "--frame-rate", "0", "--log-format", "json", "--control", "none", "--config", str(config)]
        self._command = [sys.executable, "-m", "vhostcomm", *words]
        self.process: Any = None

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        self._events: dict[str, dict[str, Any]] = {}
        self._came = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def _read(self) -> None:
        for line in self.process.stdout:
            event = json.loads(line)
            with self._came:
                self._events[event["event"]] = event
                self._came.notify_all()

    def wait(self, what: str) -> dict[str, Any]:
        with self._came:
            self._came.wait_for(lambda: what in self._events)
            return self._events[what]

    def settle(self) -> None:
        """Wait until the daemon is idle."""
        spent = -1.0
        while spent != (spent := self._spent()):
            time.sleep(0.2)

    def _spent(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return float(fields[11]) + float(fields[12])

    def resident(self) -> float:
        """Return the daemon's resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


if __name__ == "__main__":
    main()

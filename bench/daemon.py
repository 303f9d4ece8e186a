"""A running daemon over a unix socket, compared with a C echo of the same frames in the same run.

Compared programs are measured in turns, and the best of each counts. No number is asserted.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
REPEATS: Final = 5
GUESTS: Final = 1000


def main() -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("daemon: not measured, there is no C compiler for the other end (Debian: apt-get install gcc)")
        return
    with tempfile.TemporaryDirectory(prefix="vhostcomm-bench-") as folder:
        work = Path(folder)
        wire = work / "wire"
        subprocess.run([compiler, "-O2", "-o", wire, HERE / "wire.c"], check=True)
        one_guest(wire, work)
        many_guests(wire, work)


def one_guest(wire: Path, work: Path) -> None:
    with echo(wire, work / "echo"), serving("--sock", str(work / "guest"), ready=work / "guest"):
        rtt, pipe = in_turns(wire, work, ("rtt", 20_000)), in_turns(wire, work, ("pipe", 100_000))
    print("daemon: one guest over a unix socket, beside a C echo of the same frames")
    for name in ("p50", "p99"):
        mine, floor = (min(each[name] for each in rtt[who]) / 1000 for who in ("guest", "echo"))
        print(f"  round trip {name:25}{mine:9.1f} µs {floor:9.1f} µs {mine / floor:6.2f} times the echo's")
    mine, floor = (max(each["frames"] for each in pipe[who]) for who in ("guest", "echo"))
    print(f"  pipelined, 16 in flight         {mine:13,.0f} /s {floor:10,.0f} /s {mine / floor:5.2f} of the echo's")


def in_turns(wire: Path, work: Path, what: tuple[str, int]) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {"echo": [], "guest": []}
    for _ in range(REPEATS):
        for who, each in found.items():
            each.append(call(wire, what[0], work / who, what[1]))
    return found


def many_guests(wire: Path, work: Path) -> None:
    config = work / "many.toml"
    config.write_text("".join(f'[guests.g{place}]\nsock = "{work}/g{place}"\n' for place in range(GUESTS)))
    with serving("--config", str(config), ready=work / f"g{GUESTS - 1}") as process:
        before = resident(process.pid)
        with idle(wire, work / "g", GUESTS, process.pid):
            while_idle = resident(process.pid)
        with echo(wire, work / "echo"):
            mine = [call(wire, "many", work / "g", GUESTS, 5) for _ in range(REPEATS)]
            floor = [call(wire, "same", work / "echo", GUESTS, 5) for _ in range(REPEATS)]
        after = resident(process.pid)
    print(f"daemon: {GUESTS} guests connected to one process, each asking in turn")
    for name in ("p50", "p99"):
        a, b = (min(each[name] for each in both) / 1000 for both in (mine, floor))
        print(f"  round trip {name:25}{a:9.1f} µs {b:9.1f} µs {a / b:6.2f} times the echo's")
    print(f"  resident memory: {before:.0f} MB listening, {while_idle:.0f} MB with all connected, {after:.0f} MB after")
    times = []
    for place in range(REPEATS):
        path = work / f"start{place}"
        begin = time.perf_counter()
        with serving("--sock", str(path), ready=path):
            times.append(time.perf_counter() - begin)
    print(f"  start to listening: {min(times) * 1000:.0f} ms (one guest)")


def call(wire: Path, *words: object) -> dict[str, float]:
    done = subprocess.run([wire, *map(str, words)], stdout=subprocess.PIPE, check=True)
    made: dict[str, float] = json.loads(done.stdout)
    return made


@contextmanager
def echo(wire: Path, path: Path) -> Iterator[None]:
    process = subprocess.Popen([wire, "echo", path])
    try:
        listening(path, process)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def idle(wire: Path, prefix: Path, count: int, daemon: int) -> Iterator[None]:
    """Connect idle guests; the daemon, a process id, has accepted them inside the block."""
    descriptors = Path(f"/proc/{daemon}/fd")
    wanted = len(list(descriptors.iterdir())) + count
    command = [str(wire), "idle", str(prefix), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        while len(list(descriptors.iterdir())) < wanted:
            time.sleep(0.01)
        yield
        process.kill()


@contextmanager
def serving(*words: str, ready: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "vhostcomm", "serve", "--frame-rate", "0", "--log-format", "json", *words]
    process: Any = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        listening(ready, process)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def listening(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a program listens at the socket."""
    while process.poll() is None:
        with socket.socket(socket.AF_UNIX) as trial:
            if trial.connect_ex(str(path)) == 0:
                return
        time.sleep(0.001)
    raise SystemExit(f"{path}: nobody listens")


def resident(pid: int) -> float:
    """Return a process's resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()

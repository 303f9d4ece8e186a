"""Start time and memory of the programs, compared with only ``import trio, attrs, structlog`` in the same run.

A start ends when the sockets exist. Processor time is measured, because a busy machine does not change it. The lowest of
several starts counts. No number is asserted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from attrs import frozen

ROOT: Final = Path(__file__).parents[1]
BIN: Final = Path(sys.executable).parent
STARTS: Final = 7
TIMEOUT: Final = 60.0
QUOTA: Final = 0.1
"""The share of one processor that may be free on a loaded machine."""

GROUND: Final = [sys.executable, "-c", "import trio, attrs, structlog"]
_TICK: Final = os.sysconf("SC_CLK_TCK")


@frozen
class Start:
    """Processor seconds, wall-clock seconds, and resident kilobytes at the end of a start."""

    cpu: float
    wall: float
    resident: int


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vhostcomm-bench-") as folder:
        work = Path(folder)
        subprocess.run([sys.executable, "-m", "tools.onefile", work], cwd=ROOT, check=True, capture_output=True)
        sock, api = work / "sock", work / "api"
        flags = [f"-addr={sock}", f"-api={api}"]
        serve = ["serve", "--sock", f"nas={sock}", "--control", f"{work}/control"]
        programs: dict[str, list[str | Path]] = {
            "vhostcomm serve": [BIN / "vhostcomm", *serve],
            "vhostcomm serve, one file": [work / "vhostcomm", *serve],
            "qemu-host": [BIN / "qemu-host", *flags],
            "qemu-host, one file": [work / "qemu-host", *flags],
        }
        ground = least([ended(GROUND) for _ in range(STARTS)])
        print("start: processor time to the sockets, and resident memory, beside trio, attrs and structlog alone")
        show("trio, attrs, structlog", ground, ground)
        for name, command in programs.items():
            wanted = [sock, api] if "qemu-host" in name else [sock]
            show(name, least([listening(command, wanted) for _ in range(STARTS)]), ground)
        for words in ["--version"], ["guests", "--control", str(work / "nobody")]:
            start = least([ended([BIN / "vhostcomm", *words]) for _ in range(STARTS)])
            show(f"vhostcomm {words[0]}", start, ground)
        with limited(QUOTA) as group:
            if group is None:
                print("  with a tenth of a processor: not measured, this user may not make a control group")
            else:
                start = listening(programs["qemu-host, one file"], [sock, api], group)
                print(f"  qemu-host, one file, with a tenth of a processor {start.wall:9.1f} s")


def show(name: str, start: Start, ground: Start) -> None:
    print(
        f"  {name:28}{start.cpu * 1000:8.0f} ms {start.cpu / ground.cpu:6.2f} times"
        f"{start.resident / 1024:8.1f} MB {start.resident / ground.resident:6.2f} times"
    )


def least(starts: Sequence[Start]) -> Start:
    return min(starts, key=lambda each: each.cpu)


def ended(command: Sequence[str | Path]) -> Start:
    """Measure a program that ends by itself."""
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    return Start(used.ru_utime + used.ru_stime, time.perf_counter() - begin, used.ru_maxrss)


def listening(command: Sequence[str | Path], sockets: Sequence[Path], group: Path | None = None) -> Start:
    """Measure a program that serves, until its sockets exist."""
    begin = time.perf_counter()
    words = [str(word) for word in command]
    if group:
        words = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs"), *words]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not all(each.exists() for each in sockets):
                if process.poll() is not None or time.perf_counter() - begin > TIMEOUT:
                    sys.exit(f"{command[0]}: no sockets (status {process.returncode})")
                time.sleep(0.002)
            wall = time.perf_counter() - begin
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{process.pid}/status").read_text()
            resident = int(status.partition("VmHWM:")[2].split()[0])
            return Start((int(fields[11]) + int(fields[12])) / _TICK, wall, resident)
        finally:
            process.send_signal(signal.SIGTERM)


@contextmanager
def limited(share: float) -> Iterator[Path | None]:
    """A control group with a share of one processor; None if it can't be created."""
    period = 100_000
    for place, quota in (("cpu", "cpu.cfs_quota_us"), ("", "cpu.max")):
        group = Path("/sys/fs/cgroup") / place / f"vhostcomm-bench-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            try:
                (group / quota).write_text(str(int(period * share)) + ("" if place else f" {period}"))
                yield group
            finally:
                group.rmdir()
            return
    yield None


if __name__ == "__main__":
    main()

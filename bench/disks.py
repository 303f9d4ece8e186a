"""Disks of one guest with different options, by fio, in one run.

The stand-in guest has one disk for each row of `DISKS`. Each round runs every job on every disk in turn, beginning with
another disk each time, so noise of the host affects all disks alike. The host's page cache has no data of the disk when a
job begins. No number is asserted. Needs fio and the stand-in guest's packages.

`BENCH_ACCEL=tcg`: without KVM. `BENCH_FOLDER`: where the images are. `BENCH_ROUNDS`: how many. `VHOSTCOMM_QEMU`: another
QEMU. Each measurement is on standard error.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.e2e import fio

ROOT: Final = Path(__file__).parents[1]
SIZE: Final = 256 << 20
SECONDS: Final = 1
ROUNDS: Final = int(os.environ.get("BENCH_ROUNDS", "5"))

DISKS: Final = {
    "ours": "",
    "QEMU's defaults": "cache=writeback,aio=threads,discard=ignore,detect-zeroes=off,rotation-rate=0,iothread=off",
}
"""Options of `--data`."""

CONTAINER: Final = "the container's"
CONTAINER_DISK: Final = """\
-object iothread,id=io2
-device virtio-scsi-pci,id=data9b,bus=pci.0,addr=0x1b,iothread=io2
-drive file={path},id=data9,format=raw,cache=none,aio=native,discard=on,detect-zeroes=on,if=none
-device scsi-hd,bus=data9b.0,channel=0,scsi-id=0,lun=0,drive=data9,rotation_rate=1"""
"""The arguments of the container vdsm/virtual-dsm. Its disks share the I/O thread; here, there is only one disk."""

SLOTS: Final = ("0c", "0d", "1b")

JOBS: Final = {
    "4 KiB random reads, one at a time": {"rw": "randread", "bs": "4k", "iodepth": 1},
    "4 KiB random reads, 32 at once": {"rw": "randread", "bs": "4k", "iodepth": 32},
    "4 KiB random writes, each flushed": {"rw": "randwrite", "bs": "4k", "iodepth": 1, "fsync": 1},
    "4 KiB random writes, 32 at once": {"rw": "randwrite", "bs": "4k", "iodepth": 32, "end_fsync": 1},
    "1 MiB reads, one at a time": {"rw": "read", "bs": "1m", "iodepth": 1},
    "1 MiB reads, 32 at once": {"rw": "read", "bs": "1m", "iodepth": 32},
    "1 MiB writes, each flushed": {"rw": "write", "bs": "1m", "iodepth": 1, "fsync": 1},
    "1 MiB writes, 32 at once": {"rw": "write", "bs": "1m", "iodepth": 32, "end_fsync": 1},
}
"""fio's options. The flush at the end is part of the time."""


def main() -> None:
    if not shutil.which("fio"):
        print("disks: not measured, fio is not installed; install the package fio")
        return
    names = [*DISKS, CONTAINER]
    found: dict[str, list[list[float]]] = {name: [[] for _ in names] for name in JOBS}
    with tempfile.TemporaryDirectory(prefix="vhostcomm-bench-", dir=os.environ.get("BENCH_FOLDER")) as folder:
        work = Path(folder)
        images = [image(work / f"{slot}.img") for slot in SLOTS]
        with guest(work, images) as port:
            measured(work, port, next(iter(JOBS)), list(SLOTS))  # the first job of a guest is slow on any disk
            for turn in range(ROUNDS):
                order = [(each + turn) % len(names) for each in range(len(names))]
                for name in JOBS:
                    for path in images:
                        forget(path)
                    for number, speed in zip(
                        order, measured(work, port, name, [SLOTS[each] for each in order]), strict=True
                    ):
                        found[name][number].append(speed)
                        print(f"{name}\t{names[number]}\t{speed:.1f}", file=sys.stderr, flush=True)
    print(f"A guest's disk: median of {ROUNDS} runs of {SECONDS} s (lowest to highest)")
    print(f"{'':34}" + "".join(f"{name:>26}" for name in names))
    for name, row in found.items():
        unit = "MiB/s" if "MiB" in name else "IOPS"
        cells = (f"{statistics.median(each):.0f} {unit} ({min(each):.0f}-{max(each):.0f})" for each in row)
        print(f"{name:34}" + "".join(f"{cell:>26}" for cell in cells))


def image(path: Path) -> Path:
    """Create a disk without holes."""
    with path.open("wb") as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))
    return path


def forget(path: Path) -> None:
    """Write back a file's pages in the host's page cache, and drop them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


@contextmanager
def guest(work: Path, images: list[Path]) -> Iterator[int]:
    """Run QEMU with the command of `run`. Yields the port of fio's server in the guest."""
    built = subprocess.run(
        [ROOT / "tests/guest/build.sh", "--print-paths"], stdout=subprocess.PIPE, text=True, check=True
    )
    files = dict(line.split("=", 1) for line in built.stdout.splitlines())
    start = fio.initramfs(Path(files["INITRAMFS"]), work)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    words = ["--accel", os.environ.get("BENCH_ACCEL", "auto"), "--memory", "768M", "--sock", "/tmp/none"]
    words += ["--forward", f"{port}:{fio.GUEST_PORT}", "--qemu", os.environ.get("VHOSTCOMM_QEMU", "qemu-system-x86_64")]
    for each in filter(None, os.environ.get("VHOSTCOMM_QEMU_DATA", "").split(":")):
        words += ["--qemu-data", each]
    append = f"{Path(files['CMDLINE']).read_text().strip()} rdinit=/fio"
    words += ["--direct-kernel", files["KERNEL"], "--initrd", str(start), "--append", append]
    for options, path in zip(DISKS.values(), images, strict=False):
        words += ["--data", f"{path},{options}" if options else str(path)]
    words += ["--dry-run", "--", *CONTAINER_DISK.format(path=images[-1]).split()]
    vhostcomm = Path(sys.executable).with_name("vhostcomm")
    shown = subprocess.run([vhostcomm, "run", *words], stdout=subprocess.PIPE, text=True, check=True).stdout
    with subprocess.Popen(["sh", "-c", f"exec {shown}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          errors="replace") as process:  # fmt: skip
        try:
            assert process.stdout
            said = ""
            for line in process.stdout:
                said += line
                if fio.READY in line:
                    break
            else:
                sys.exit(f"the guest ended: {said}")
            yield port
        finally:
            process.kill()


def measured(work: Path, port: int, name: str, slots: list[str]) -> list[float]:
    """Run a job on one disk after the other; return MiB/s for large blocks, operations per second for small ones."""
    file, result = work / "job.fio", work / "result"
    options = JOBS[name] | {"direct": 1, "ioengine": "libaio", "runtime": SECONDS, "randrepeat": 0}
    # A reader that continued at the start of the disk would read from the host's page cache.
    options["time_based"] = int("writes" in name)
    file.write_text("".join(fio.job(slot, filename=f"/dev/slot-{slot}", stonewall=1, **options) for slot in slots))
    subprocess.run(fio.client(port, file, "--output-format=json", f"--output={result}"), check=True)
    text = result.read_text()
    done = {each["jobname"]: each for each in json.loads(text[text.index("{") :])["client_stats"]}
    assert not any(done[slot]["error"] for slot in slots), text
    sides = [done[slot]["write" if "writes" in name else "read"] for slot in slots]
    return [float(side["bw"] / 1024 if "MiB" in name else side["iops"]) for side in sides]


if __name__ == "__main__":
    main()

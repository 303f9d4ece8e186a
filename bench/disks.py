"""Disks in a guest with several options, by fio, in one run; and confirmed writes after QEMU is killed.

The stand-in guest's kernel starts with fio in its initramfs, and one data disk. No number is asserted. Needs fio, and the
stand-in guest's packages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
SIZE: Final = 256 << 20
SECONDS: Final = 1
ROUNDS: Final = 1

MACHINES: Final = {
    "ours": "",
    "QEMU's defaults": "cache=writeback,aio=threads,discard=ignore,detect-zeroes=off,rotation-rate=0,iothread=off",
    "io_uring": "aio=io_uring",
}
"""Options of the disk. The container's are ours: its I/O thread is one for all disks, and here is one disk."""

WORK: Final = [(mode, size, depth) for mode, size in (("randread", "4k"), ("randwrite", "4k"), ("read", "1m"), ("write", "1m"))
               for depth in (1, 32)]  # fmt: skip

INIT: Final = """\
#!/bin/sh
export PATH=/bin LD_LIBRARY_PATH=/lib
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
while read -r module; do insmod "/lib/modules/$module"; done </etc/modules
until [ -e /dev/sda ]; do usleep 50000; done
{work}
poweroff -f
"""

FIO: Final = (
    "echo FIO {name}; fio --name={name} --filename=/dev/sda --direct=1 --ioengine=libaio --rw={mode} --bs={size} "
    "--iodepth={depth} --runtime={seconds} --time_based --output-format=json --randrepeat=0 {sync}; echo END"
)
WRITES: Final = """\
i=0
while :; do
    printf %08d $i | dd of=/dev/sda bs=512 seek=$i conv=sync,notrunc,fsync 2>/dev/null
    echo "confirmed $i"
    i=$((i + 1))
done"""


def main() -> None:
    if not (fio := shutil.which("fio")):
        sys.exit("fio is not installed; it is in the package fio")
    with tempfile.TemporaryDirectory(prefix="vhostcomm-bench-", dir=os.environ.get("BENCH_FOLDER")) as folder:
        work = Path(folder)
        guest = built()
        image = work / "data.img"
        with image.open("wb") as file:
            for _ in range(SIZE >> 20):
                file.write(os.urandom(1 << 20))
        print(
            f"MiB/s and I/O operations a second of a guest's disk, {SECONDS} s each, the better of {ROUNDS}; writes in MiB:"
        )
        jobs = "\n".join(
            FIO.format(
                name=f"{mode}-{size}-{depth}", mode=mode, size=size, depth=depth, seconds=SECONDS,
                sync="--fsync=1" if "write" in mode and depth == 1 else "",
            )
            for mode, size, depth in WORK
        )  # fmt: skip
        start = initramfs(guest, work, INIT.format(work=jobs), fio)
        best: dict[str, dict[str, float]] = {}
        for _ in range(ROUNDS):
            for name, options in MACHINES.items():
                for job, speed in measured(guest, start, f"{image},{options}" if options else str(image)):
                    row = best.setdefault(job, {})
                    row[name] = max(row.get(name, 0.0), speed)
        print(f"{'':16}" + "".join(f"{name:>17}" for name in MACHINES))
        for job, row in best.items():
            unit = "MiB/s" if "1m" in job else "IOPS"
            print(f"{job:16}" + "".join(f"{row[name]:>11.0f} {unit:5}" for name in MACHINES))
        start = initramfs(guest, work, INIT.format(work=WRITES), fio)
        for kind in ("raw", "qcow2"):
            killed(guest, start, work, kind)


def built() -> dict[str, str]:
    """The stand-in guest's files."""
    words = [str(ROOT / "tests/guest/build.sh"), "--print-paths"]
    text = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in text.splitlines())


def initramfs(guest: dict[str, str], work: Path, script: str, fio: str) -> Path:
    """The stand-in guest's, and behind it one with fio, its libraries and another first process."""
    tree = work / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for each in ("bin", "lib", "lib64", "tmp"):
        (tree / each).mkdir(parents=True)
    shutil.copy(fio, tree / "bin/fio")
    for library in re.findall(
        r"(/\S+) \(0x", subprocess.run(["ldd", fio], capture_output=True, text=True, check=True).stdout
    ):
        shutil.copy(library, tree / ("lib64" if "ld-linux" in library else "lib"))
    (tree / "bench").write_text(script)
    (tree / "bench").chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    packed = subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "+0:+0"], cwd=tree, input=names.encode(),
                            stdout=subprocess.PIPE, check=True).stdout  # fmt: skip
    both = work / "initramfs"
    first = Path(guest["INITRAMFS"]).read_bytes()
    both.write_bytes(first + bytes(-len(first) % 4) + packed)  # an unpacked one begins at a multiple of four
    return both


@contextmanager
def running(guest: dict[str, str], start: Path, disk: str) -> Iterator[subprocess.Popen[str]]:
    """QEMU itself, with the command of `run`; its console is on standard output."""
    append = f"{Path(guest['CMDLINE']).read_text().strip()} rdinit=/bench"
    words = [
        "run",
        "--accel",
        os.environ.get("BENCH_ACCEL", "auto"),
        "--memory",
        "512M",
        "--net",
        "none",
        "--sock",
        "/tmp/none",
    ]
    words += [
        "--direct-kernel",
        guest["KERNEL"],
        "--initrd",
        str(start),
        "--append",
        append,
        "--data",
        disk,
        "--dry-run",
    ]
    shown = subprocess.run(
        [Path(sys.executable).with_name("vhostcomm"), *words], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    process = subprocess.Popen(["sh", "-c", f"exec {shown}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                               errors="replace")  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def measured(guest: dict[str, str], start: Path, disk: str) -> Iterator[tuple[str, float]]:
    """Each job's speed: MiB/s of large blocks, operations a second of small ones."""
    with running(guest, start, disk) as process:
        assert process.stdout
        lines = iter(process.stdout)
        for line in lines:
            if not (begun := re.match(r"FIO (\S+)", line)):
                continue
            text = ""
            for part in lines:
                if part.startswith("END"):
                    break
                text += part
            (job,) = json.loads(text[text.index("{") :])["jobs"]
            side = job["write" if "write" in begun[1] else "read"]
            yield begun[1], side["bw"] / 1024 if "1m" in begun[1] else side["iops"]


def killed(guest: dict[str, str], start: Path, work: Path, kind: str) -> None:
    """Kill QEMU amid writes; each that the guest had confirmed is in the image."""
    image = work / f"killed.{'img' if kind == 'raw' else 'qcow2'}"
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, image, "64M"], check=True)
    confirmed = -1
    with running(guest, start, str(image)) as process:
        assert process.stdout
        for line in process.stdout:
            if found := re.match(r"confirmed (\d+)", line):
                confirmed = int(found[1])
            if confirmed >= 200:
                process.send_signal(signal.SIGKILL)
                break
        for line in process.stdout:  # what was on its way
            if found := re.fullmatch(r"confirmed (\d+)\s*", line):
                confirmed = int(found[1])
    raw = work / "killed.raw"
    subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", image, raw], check=True)
    data = raw.read_bytes()
    lost = [number for number in range(confirmed + 1) if data[number * 512 :][:8] != b"%08d" % number]
    print(f"QEMU killed (SIGKILL) after {confirmed + 1} confirmed writes to a {kind} disk: {len(lost)} lost")


if __name__ == "__main__":
    main()

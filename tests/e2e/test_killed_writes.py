"""Writes that a disk has confirmed to the guest are in its image, even if QEMU is killed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import evolve, frozen

from tests.e2e import fio
from tests.e2e.launched import BOOT_TIMEOUT, Images, Launched
from tests.serving import held_port, started, until

SIZE: Final = 1 << 30
"""Bytes of each disk: more than fio can write before QEMU is killed."""
WRITES: Final = 100
"""The least number of writes to each disk that fio verifies; QEMU is killed after twice as many."""
OCCUPIED: Final = {"raw": 4 << 10, "qcow2": 64 << 10}
"""Bytes that a write of 4 KiB occupies in an image of each format, if nothing nearby was written."""


@frozen
class Disk:
    """A disk that fio writes to, and whether the guest flushes each write before it counts as confirmed."""

    kind: str
    options: str = ""
    flushed: bool = True

    @property
    def job(self) -> dict[str, object]:
        """The options of fio's job, for the writes in the guest and for the verification here."""
        return {
            "rw": "randwrite",
            "bs": "4k",
            "size": SIZE,
            "iodepth": 8,
            "sync": "dsync" if self.flushed else "none",
            "verify": "crc32c",
        }


THROUGH_PAGES: Final = ",cache=writeback,aio=threads"
DISKS: Final = {
    "raw": Disk("raw", flushed=False),  # QEMU keeps no metadata of a raw image in its own memory
    "raw-pages": Disk("raw", THROUGH_PAGES, flushed=False),
    "qcow2": Disk("qcow2"),
    "qcow2-pages": Disk("qcow2", THROUGH_PAGES),
    "unflushed": Disk("qcow2", flushed=False),
}
LOST: Final = "unflushed"
"""The disk whose allocations are only in QEMU's memory. fio must report them as lost, which proves that it finds losses."""


@pytest.mark.needs("fio", "qemu-img")
def test_no_confirmed_write_is_lost_when_qemu_is_killed(tmp_path: Path, images: Images) -> None:
    """fio's client records which writes were confirmed and kills QEMU. fio then verifies these writes in the image."""
    paths = {name: tmp_path / name for name in DISKS}
    for name, disk in DISKS.items():
        subprocess.run(["qemu-img", "create", "-q", "-f", disk.kind, paths[name], str(SIZE)], check=True)
    killed_while_fio_writes(tmp_path, images, paths)
    for name, path in paths.items():
        raw = tmp_path / f"{name}.raw"
        subprocess.run(["qemu-img", "convert", "-f", DISKS[name].kind, "-O", "raw", path, raw], check=True)
        path.unlink()
        paths[name] = raw
    results = verified(tmp_path, paths)
    assert {name for name, result in results.items() if result["error"]} == {LOST}
    assert all(results[name]["read"]["total_ios"] > WRITES for name in DISKS if name != LOST), results


def killed_while_fio_writes(folder: Path, images: Images, paths: dict[str, Path]) -> None:
    """Run fio in a guest and kill its QEMU. Afterwards, the folder has fio's state of each job."""
    file, trigger = folder / "write", folder / "trigger"
    disks = [word for name, path in paths.items() for word in ("--data", f"{path}{DISKS[name].options}")]
    words = evolve(images, cmdline=f"{images.cmdline} rdinit=/fio", disks=tuple(disks)).direct()
    words[words.index("--net") + 1] = "user"
    words[words.index("--memory") + 1] = "768M"
    words[words.index("--initrd") + 1] = str(fio.initramfs(images.initramfs, folder))
    slots = range(0xC, 0xC + len(paths))
    with (
        held_port() as port,
        Launched(folder, *words, "--forward", f"{port}:{fio.GUEST_PORT}", expect_exit=None) as run,
    ):
        run.event("QEMU runs")
        run.console.says(fio.READY)
        file.write_text(
            "".join(
                fio.job(
                    name, filename=f"/dev/slot-{slot:02x}", ioengine="libaio", direct=1, do_verify=0, **DISKS[name].job
                )
                for name, slot in zip(paths, slots, strict=True)
            )
        )
        kill = [f"--trigger-file={trigger}", "--trigger-remote=true", f"--trigger=kill -9 {run.qemu_pid}"]
        with started(fio.client(port, file, *kill), cwd=folder, stdout=subprocess.DEVNULL) as client:
            until(lambda: min(map(writes_in, paths.values())) > 2 * WRITES, "fio's writes", BOOT_TIMEOUT)
            trigger.touch()
            assert run.ends() != 0
            client.wait(BOOT_TIMEOUT)


def writes_in(path: Path) -> int:
    """Return the number of writes to an image, from the bytes that it occupies without its holes."""
    return path.stat().st_blocks * 512 // OCCUPIED[DISKS[path.name].kind]


def verified(folder: Path, paths: dict[str, Path]) -> dict[str, Any]:
    """Return fio's results by job, from the states that its client recorded."""
    file = folder / "verify"
    for state in folder.glob("*-verify.state"):
        _, name_and_number = state.name.split("-", 1)
        state.rename(folder / f"local-{name_and_number}")
    file.write_text("".join(fio.job(name, filename=path, **DISKS[name].job) for name, path in paths.items()))
    words = ["fio", "--verify_only", "--verify_state_load=1", "--output-format=json", str(file)]
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    return {job["jobname"]: job for job in json.loads(done.stdout[done.stdout.index("{") :])["jobs"]}

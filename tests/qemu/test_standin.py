"""Linux as the guest: the stand-in's kernel and initramfs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.qemu.disks import COMPLAINT
from tests.qemu.running import Run, grace_of, supervise
from tests.trio_help import run_in_real_time
from vhostcomm.qemu.argv import build
from vhostcomm.qemu.capabilities import Capabilities
from vhostcomm.qemu.ending import EndKind, Stage
from vhostcomm.qemu.machine import DirectKernel, Disk, Machine, SerialFile, UserNet, Vchannel
from vhostcomm.qemu.machine_watch import Rebooted
from vhostcomm.qemu.stopping import StageBegun

pytestmark = pytest.mark.usefixtures("nothing_left")
DISKS = Path(__file__).parents[1] / "guest/initramfs/disks.sh"


def linux(can: Capabilities, folder: Path, standin: dict[str, str], *words: str, disks: bool = False) -> list[str]:
    append = " ".join([Path(standin["CMDLINE"]).read_text().strip(), *words])
    names = ("BOOT_DISK", "SYSTEM_DISK", "DATA_DISK") if disks else ()
    boot, system, data = [Disk(standin[name], snapshot=True) for name in names] or (None, None, None)
    machine = Machine(
        memory=256,
        boot=boot,
        system=system,
        data=(data,) if data else (),
        net=UserNet(),
        vchannel=Vchannel(str(folder / "vchannel"), server=True),
        serial=SerialFile(str(folder / "console")),
        direct=DirectKernel(standin["KERNEL"], standin["INITRAMFS"], append),
    )
    return build(machine, can)


@contextmanager
def console_in(folder: Path) -> Iterator[trio.lowlevel.FdStream]:
    """The guest's console, as a pipe that QEMU opens as a file."""
    path = folder / "console"
    os.mkfifo(path)
    # Also open for writing: reading a pipe that has no writer yet would report its end.
    stream = trio.lowlevel.FdStream(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    try:
        yield stream
    finally:
        stream.close()


async def prints(console: trio.lowlevel.FdStream, text: str) -> str:
    """Wait until the guest has printed the text; return all output up to then."""
    printed = ""
    while text not in printed:
        printed += (await console.receive_some()).decode(errors="replace")
    return printed


def test_linux_finds_its_devices_and_the_power_button_stops_it(
    can: Capabilities, tmp_path: Path, standin: dict[str, str]
) -> None:
    """The guest finds disks by slot and the port by name. The power button stops a Linux that reacts to it."""
    argv = linux(can, tmp_path, standin, "vchannel.acpi=1", disks=True)

    async def main() -> Run:
        made = Run(argv)
        with console_in(tmp_path) as console:
            async with trio.open_nursery() as nursery:
                await nursery.start(made.qemu.run)
                printed = await prints(console, "vchannel: port /dev/vport1p1")
                for line in ("[synoboot]", "[sda]", "[sdb]", "Partition Version=8", "acpi: heeding"):
                    assert line in printed
                nursery.start_soon(discard, console)
                await made.qemu.stop(grace=grace_of(0, 50, 5, 5))
                nursery.cancel_scope.cancel()
        return made

    run = run_in_real_time(main)
    ending = run.qemu.ending
    assert ending
    assert (ending.kind, ending.stage, ending.reason) == (EndKind.STOPPED, Stage.POWERDOWN, "guest-shutdown")
    assert len(run.all(StageBegun)) == 1


async def discard(console: trio.lowlevel.FdStream) -> None:
    while True:
        await console.receive_some()


def test_a_linux_reboots(can: Capabilities, tmp_path: Path, standin: dict[str, str]) -> None:
    """Without an init, Linux panics and reboots at once, again and again."""

    async def body(run: Run) -> None:
        await run.notice(Rebooted, lambda reboot: reboot.count == 2)
        await run.qemu.stop(grace=grace_of(0, 0.1, 30, 5))

    ending, run = supervise(linux(can, tmp_path, standin, "rdinit=/none", "panic=-1"), body)
    assert run.all(Rebooted) == [Rebooted(by_guest=True, count=1), Rebooted(by_guest=True, count=2)]
    assert ending.kind is EndKind.STOPPED


@pytest.mark.needs("/usr/bin/busybox")
def test_init_survives_a_system_disk_without_a_boot_record() -> None:
    """A failure of init would make the kernel panic."""
    script = f". {DISKS}; system_disk=null; check_partitions; echo alive"
    done = subprocess.run(["/usr/bin/busybox", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (0, [*COMPLAINT, "alive"])

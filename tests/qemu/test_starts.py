"""QEMU accepts every kind of machine without a warning."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.qemu.running import Run, supervise
from tests.serving import held_port
from vhostcomm.qemu.argv import build
from vhostcomm.qemu.capabilities import Capabilities
from vhostcomm.qemu.disk.image import ImageFormat
from vhostcomm.qemu.ending import EndKind
from vhostcomm.qemu.machine import DirectKernel, Disk, Forward, Machine, SerialFile, UserNet, Vchannel
from vhostcomm.qemu.supervise import OutputLine, Started

pytestmark = pytest.mark.usefixtures("nothing_left")

QCOW2 = bytes.fromhex(
    "514649fb 00000003 0000000000000000 00000000 00000010 0000000000100000 00000000 00000001 0000000000030000"
    "0000000000010000 00000001 00000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000"
    "00000004 00000068"
)
"""An empty image of 1 MiB: header, refcount table, refcount block and L1 table, of one cluster each."""


def image(folder: Path, name: str) -> Disk:
    path = folder / name
    path.write_bytes(bytes(1 << 20))
    return Disk(str(path))


def qcow2(folder: Path) -> Disk:
    path = folder / "disk.qcow2"
    table, counts = (0x20000).to_bytes(8, "big"), b"\0\1" * 4
    clusters = [QCOW2, table, counts, b""]
    path.write_bytes(b"".join(cluster.ljust(1 << 16, b"\0") for cluster in clusters))
    return Disk(str(path), ImageFormat.QCOW2)


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as free:
        yield free


def full(folder: Path, port: int) -> Machine:
    return Machine(
        memory=64,
        cpus=2,
        name="a, b = c",
        uuid=uuid.UUID(int=7),
        boot=image(folder, "boot, with comma.img"),
        system=qcow2(folder),
        data=(image(folder, "data"),),
        net=UserNet((Forward(port, 5000), Forward(port, 53, "udp"))),
        mac="02:11:32:2b:0f:e6",
        vchannel=Vchannel(str(folder / "nobody, yet")),
        serial=SerialFile(str(folder / "console,log")),
        no_reboot=True,
    )


MACHINES: dict[str, Callable[[Path], Machine]] = {
    "plain": lambda _: Machine(memory=32),
    "q35": lambda folder: Machine(memory=32, machine_type="q35", boot=image(folder, "boot"), net=UserNet()),
    "server": lambda folder: Machine(memory=32, vchannel=Vchannel(str(folder / "a,b"), server=True)),
    "all disks": lambda folder: Machine(memory=32, data=tuple(image(folder, f"data{n}") for n in range(16))),
    "snapshot": lambda folder: Machine(memory=32, system=Disk(image(folder, "s").path, snapshot=True)),
    "locked memory": lambda _: Machine(memory=32, lock_memory=True),
    "memory of a folder": lambda folder: Machine(memory=32, hugepages=str(folder)),
}


@pytest.mark.parametrize("name", ["full", *MACHINES])
def test_a_machine_starts_without_a_complaint(can: Capabilities, tmp_path: Path, port: int, name: str) -> None:
    if name == "locked memory" and os.geteuid() != 0:
        pytest.skip("locking memory needs root, or a high RLIMIT_MEMLOCK")

    machine = full(tmp_path, port) if name == "full" else MACHINES[name](tmp_path)

    async def body(run: Run) -> None:
        await run.notice(Started)
        await run.qemu.stop()

    ending, run = supervise(build(machine, can), body, paused=True)
    assert ending.kind is EndKind.STOPPED_PAUSED, ending.report()  # the machine was paused all the time
    # Without a daemon, QEMU reports that once and continues to try.
    unconnected = "Unable to connect character device charchannel0"
    assert [line for line in run.all(OutputLine) if unconnected not in line.text] == []


def test_devices_are_where_the_guest_looks(can: Capabilities, tmp_path: Path, port: int) -> None:
    found: dict[int, str] = {}

    async def body(run: Run) -> None:
        await run.notice(Started)
        (bus,) = await run.qemu.command("query-pci")
        found.update({device["slot"]: device["qdev_id"] for device in bus["devices"] if device["qdev_id"]})
        await run.qemu.stop()

    supervise(build(full(tmp_path, port), can), body, paused=True)
    assert found == {
        0x1: "usb", 0x2: "net0", 0x3: "virtio-serial0", 0x4: "balloon0", 0xA: "hw-synoboot", 0xB: "hw-synosys",
        0xC: "hw-userdata0", 0x1C: "rng0", 0x1E: "panic0",
    }  # fmt: skip


def test_invalid_kernel_is_reported(can: Capabilities, tmp_path: Path) -> None:
    """The error shows that QEMU received the whole path, including its comma."""
    path = tmp_path / "kernel,x"
    path.write_bytes(b"no kernel" * 1000)
    ending, _ = supervise(build(Machine(memory=32, direct=DirectKernel(str(path))), can))
    assert ending.kind is EndKind.FAILED_TO_START
    assert f"{path}: Invalid argument" in ending.report() or "invalid kernel header" in ending.report()

"""The flags of `vhostcomm run` that describe the machine and its supervision."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from attrs import frozen
from cyclopts import Group, Parameter

from vhostcomm.cli.flags import Place

MACHINE: Final = Group("The machine", sort_key=1)
SUPERVISION: Final = Group("Supervision", sort_key=5)


def _disk(help: str) -> Any:
    return Parameter(
        metavar="DISK",
        help=help + " A raw or qcow2 image, a block device, or naa.… for vhost-scsi; options follow a comma.",
    )


@Parameter(name="*", group=MACHINE)
@frozen
class MachineFlags:
    """The flags as given; the guest's file, or a default, decides about those that are None."""

    boot: Annotated[Place | None, _disk("The boot disk (synoboot), at PCI slot 0xa.")] = None
    system: Annotated[Place | None, _disk("The system disk (sda), at slot 0xb.")] = None
    data: Annotated[list[Place] | None, _disk("A data disk (sdb, sdc …), from slot 0xc; may be repeated.")] = None
    disk_options: Annotated[
        str | None,
        Parameter(
            metavar="OPTIONS",
            help="Options of all disks, NAME=VALUE,…: cache, aio (native, io_uring, threads), discard, detect-zeroes, "
            "rotation-rate, iothread; and serial of one disk.",
        ),
    ] = None
    snapshot: Annotated[bool, Parameter(help="Discard all writes to the disks at the end.")] = False
    memory: Annotated[str | None, Parameter(metavar="SIZE", help="Memory; MiB without a unit; 1G by default.")] = None
    cpus: Annotated[
        int | None,
        Parameter(show=False, help="An older name of --vcpus, which the environment and files don't override."),
    ] = None
    accel: Annotated[Literal["auto", "kvm", "tcg"], Parameter(help="auto uses KVM if it works, else TCG.")] = "auto"
    cpu_model: Annotated[
        str | None, Parameter(metavar="MODEL", help="QEMU's processor model; by default the host's with KVM, else max.")
    ] = None
    machine: Annotated[str, Parameter(metavar="TYPE", help="QEMU's machine type.")] = "pc"
    net: Annotated[
        str | None,
        Parameter(
            metavar="NET",
            help="The guest's network: user (the default), passt, tap=INTERFACE[,vhost=on|off][,queues=N], bridge=BRIDGE or none.",
        ),
    ] = None
    forward: Annotated[
        list[str] | None,
        Parameter(
            metavar="FORWARD",
            help="Forward a port of the host, with --net user or passt: [udp:][ADDRESS:]PORT:GUESTPORT, such as 5000:5000. May be repeated.",
        ),
    ] = None
    mac: Annotated[str | None, Parameter(metavar="MAC", help="The guest's MAC address.")] = None
    serial_console: Annotated[
        Place,
        Parameter(metavar="CONSOLE", help="The guest's console: terminal (this one), none, or a file to append to."),
    ] = "terminal"
    qemu: Annotated[Place, Parameter(metavar="PROGRAM", help="The QEMU to run.")] = "qemu-system-x86_64"
    qemu_data: Annotated[
        list[Place] | None,
        Parameter(metavar="DIRECTORY", help="A directory with QEMU's firmware (-L); may be repeated."),
    ] = None
    direct_kernel: Annotated[
        Place | None, Parameter(metavar="FILE", help="Boot this kernel instead of the boot disk's loader.")
    ] = None
    initrd: Annotated[Place | None, Parameter(metavar="FILE", help="The initial RAM disk for --direct-kernel.")] = None
    append: Annotated[
        str,
        Parameter(metavar="TEXT", help="The kernel's command line, with --direct-kernel.", allow_leading_hyphen=True),
    ] = ""
    hugepages: Annotated[
        Place | None,
        Parameter(
            metavar="DIRECTORY",
            help="A hugetlbfs directory for the guest's memory; auto finds one with room, or goes without.",
        ),
    ] = None
    lock_memory: Annotated[bool, Parameter(help="Keep the guest's memory from being swapped.")] = False
    no_reboot: Annotated[bool, Parameter(group=SUPERVISION, help="End QEMU when the guest reboots.")] = False
    grace: Annotated[
        float,
        Parameter(
            metavar="SECONDS",
            group=SUPERVISION,
            help="Seconds for a stop: the guest's own power-off, the power button, quit, SIGTERM, SIGKILL.",
        ),
    ] = 90.0
    restart: Annotated[
        Literal["no", "on-failure", "always"],
        Parameter(group=SUPERVISION, help="When to start QEMU again; never after the guest's own shutdown."),
    ] = "no"
    on: Annotated[
        list[str] | None,
        Parameter(
            metavar="EVENT=PROGRAM",
            group=SUPERVISION,
            help="Run PROGRAM at ready, stopping, stopped, rebooted or crashed, with VHOSTCOMM_HOOK_… in its environment.",
        ),
    ] = None

"""Check whether KVM really works by running code with it.

/dev/kvm can be opened and can create a machine, and yet be useless. With kvm_pvm (a kernel module that offers KVM
without nested virtualisation) QEMU starts and SeaBIOS completes. But the module interprets a 64-bit kernel one
instruction at a time, hundreds of times slower than TCG.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import trio

from vhostcomm.qemu.child import spawn

TRIAL_TIMEOUT: Final = 2.0
"""Seconds for the trial: it takes 0.06 with TCG, and 24 with a KVM that interprets."""

_TRIAL_EXIT: Final = 33
"""isa-debug-exit ends QEMU with the status ``(value << 1) | 1``."""

_ROM_SIZE: Final = 1 << 16
_RESET_VECTOR: Final = 0xFFF0
_JUMP_TO_START: Final = bytes.fromhex("ea000000f0")
"""ljmpw $0xf000, $0: from the reset vector to the start of the ROM's copy below 1 MiB, as every BIOS does."""

_CODE: Final = bytes.fromhex(
    # 16 bits, at f000:0000
    "fa"  # cli
    "2e660f0116a800"  # lgdtl %cs:gdt_pointer
    "0f20c0"  # mov %cr0, %eax
    "6625ffffff9f"  # and $0x9fffffff, %eax: caches on
    "0c01"  # or $1, %al: protected mode
    "0f22c0"  # mov %eax, %cr0
    "66ea1e000f000800"  # ljmpl $8, $0xf001e
    # 32 bits; page tables at 0x1000, identity mapping of the first 2 MiB
    "b810000000"  # mov $16, %eax
    "8ed8"  # mov %eax, %ds
    "8ec0"  # mov %eax, %es
    "c7050010000003200000"  # movl $0x2003, 0x1000
    "c7050020000003300000"  # movl $0x3003, 0x2000
    "c7050030000083000000"  # movl $0x83, 0x3000
    "b800100000"  # mov $0x1000, %eax
    "0f22d8"  # mov %eax, %cr3
    "b820000000"  # mov $0x20, %eax: physical address extension
    "0f22e0"  # mov %eax, %cr4
    "b9800000c0"  # mov $0xc0000080, %ecx: EFER
    "0f32"  # rdmsr
    "80cc01"  # or $1, %ah: long mode
    "0f30"  # wrmsr
    "0f20c0"  # mov %cr0, %eax
    "0d00000080"  # or $0x80000000, %eax: paging
    "0f22c0"  # mov %eax, %cr0
    "ea73000f001800"  # ljmp $24, $0xf0073
    # 64 bits
    "b9002d3101"  # mov $20000000, %ecx
    "ffc9"  # 1: dec %ecx
    "75fc"  # jnz 1b
    "b010"  # mov $0x10, %al
    "e6f4"  # out %al, $0xf4: isa-debug-exit
    "f4"  # 2: hlt
    "ebfd"  # jmp 2b
    "0f1f440000"  # nop, up to 0x88
    # the descriptors: null, 32-bit code, data, 64-bit code; marked as accessed, because the CPU can't write to a ROM
    "0000000000000000"
    "ffff0000009bcf00"
    "ffff00000093cf00"
    "ffff0000009baf00"
    # gdt_pointer: their size and address
    "1f0088000f00"
)


async def trial(command: Sequence[str], accelerator: str) -> str:
    """Run 40 million instructions of 64-bit code in an otherwise empty machine. Return why it failed, "" if it worked.

    `command` is QEMU with its data directories.
    """
    rom = os.memfd_create("vhostcomm-trial")
    try:
        os.write(rom, _CODE.ljust(_RESET_VECTOR, b"\0") + _JUMP_TO_START.ljust(_ROM_SIZE - _RESET_VECTOR, b"\0"))
        arguments = [
            "-nodefaults", "-no-user-config", "-display", "none", "-machine", f"pc,accel={accelerator}", "-m", "16",
            "-bios", f"/proc/self/fd/{rom}", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        ]  # fmt: skip
        async with spawn([*command, *arguments], pass_fds=[rom]) as qemu:
            with trio.move_on_after(TRIAL_TIMEOUT):
                await qemu.read_output(lambda _: None)
                await qemu.wait()
    finally:
        os.close(rom)
    if qemu.code == _TRIAL_EXIT:
        return ""
    if qemu.code == -9:
        return (
            f"40 million instructions took more than {TRIAL_TIMEOUT:g} s: KVM interprets code instead of executing it"
        )
    return "; ".join(qemu.tail) or f"the trial ended with {qemu.code}"

"""Guests of a few bytes: they run instead of the BIOS, within milliseconds, in 16-bit mode."""

from __future__ import annotations

from pathlib import Path

SIZE = 1 << 16
RESET_VECTOR = 0xFFF0
JUMP_TO_START = bytes.fromhex("e90d00")

IDLE = bytes.fromhex("f4ebfd")  # 1: hlt; jmp 1b

_POWER_MANAGEMENT = bytes.fromhex(
    "66b8400b0080 baf80c 66ef"  # PCI 0:1.3, register 0x40: the base address for power management
    "66b801060000 bafc0c 66ef"  # is port 0x600
    "66b8800b0080 baf80c 66ef"  # register 0x80
    "b001 bafc0c ee"  # enable power management
)

POWER_OFF = _POWER_MANAGEMENT + bytes.fromhex("b80020 ba0406 ef f4ebfd")  # port 0x604: sleep, type 0, which is off

_SUSPEND = bytes.fromhex("ff060005") + _POWER_MANAGEMENT + bytes.fromhex("b80024 ba0406 ef")  # type 1: to memory
SUSPEND_ONCE = (
    bytes.fromhex("31c0 8ed8 833e000500 75")  # data segment 0; skip the suspend if the count at 0x500 is more than 0
    + bytes([len(_SUSPEND)])
    + _SUSPEND
    + IDLE
)
"""A wake-up starts the code at the reset vector again, so the second pass is idle."""

WATCHDOG = bytes.fromhex("ba4304 b00f ee") + IDLE  # port 0x443, of the device ib700: it expires in 0 s

REBOOT_THREE_TIMES = bytes.fromhex(
    "31c0 8ed8"  # data segment 0
    "ff060005"  # count at 0x500, which a reset does not change
    "833e000503 7704"  # if it is more than 3, skip the reset
    "b0fe e664"  # the keyboard controller resets
    "f4ebfd"
)

PANIC = bytes.fromhex("ba0505 b001 ee f4ebfd")  # port 0x505, of the ISA panic device: panicked

POWER_OFF_AT_A_KEY = bytes.fromhex("e464 a801 74fa") + POWER_OFF  # 1: in $0x64, %al; test $1, %al; jz 1b


def rom(folder: Path, code: bytes) -> list[str]:
    """QEMU's arguments to run `code`, from a file in `folder`."""
    path = folder / "rom.bin"
    path.write_bytes(code.ljust(RESET_VECTOR, b"\0") + JUMP_TO_START.ljust(SIZE - RESET_VECTOR, b"\0"))
    return ["-bios", str(path)]

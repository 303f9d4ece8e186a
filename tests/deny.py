"""Run a program under a filter that denies one system call: NUMBER[:FIRST] ERRNO PROGRAM ARGUMENT…

With FIRST, only calls with that first argument are denied.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
CALL, FIRST_ARGUMENT = 0, 16  # offsets in the kernel's data for a filter
ALLOW, FAIL = 0x7FFF0000, 0x00050000

CLONE3 = "435"
"""This number is the same on every architecture."""


def main(number: str, error: str, *words: str) -> None:
    call, _, first = number.partition(":")
    wanted = [(CALL, int(call)), *([(FIRST_ARGUMENT, int(first))] if first else [])]
    code = b""
    for left, (place, value) in zip(range(len(wanted) - 1, -1, -1), wanted, strict=True):
        code += struct.pack("HBBI" * 2, LOAD, 0, 0, place, JUMP_IF_EQUAL, 0, 2 * left + 1, value)
    code += struct.pack("HBBI" * 2, RETURN, 0, 0, FAIL | int(error), RETURN, 0, 0, ALLOW)
    instructions = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions)))
    libc = ctypes.CDLL(None, use_errno=True)
    for prctl in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program)):
        if libc.prctl(*prctl, *([0] * (5 - len(prctl)))):
            sys.exit(os.strerror(ctypes.get_errno()))
    os.execvp(words[0], words)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run a program for a shell, forked from the process that listens at a socket; see `forking` in `tests/forked.py`.

    python -IS forking.py SOCKET PROGRAM WORDS...

It imports only built-in modules, so its start costs 20 ms of processor time; PROGRAM's start costs 300.
"""

import posix
import sys
from _signal import SIG_DFL, SIGHUP, SIGINT, SIGTERM, signal  # type: ignore[import-not-found]
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socket, socketpair

place, program, *words = sys.argv[1:]
if words[:1] in (["serve"], ["run"]):  # a shell signals the process itself, so it must not be a forked one
    posix.execv(program, [program, *words])

fields = [posix.getcwd(), "", str(1 + len(words)), program, *words]
environment = [name + b"=" + value for name, value in posix.environ.items()]
job = posix.memfd_create("job")
posix.write(job, b"\0".join([*(each.encode("utf-8", "surrogateescape") for each in fields), *environment]))

status, its = socketpair()
asked = socket(AF_UNIX, SOCK_SEQPACKET)
asked.connect(place)
descriptors = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (its.fileno(), job, 0, 1, 2))
asked.sendmsg([b"job"], [(SOL_SOCKET, SCM_RIGHTS, descriptors)])
its.close()
asked.close()


def received() -> int:
    """Return the next number. If the forking process has ended, this fails."""
    data = status.recv(4)
    if len(data) < 4:
        posix._exit(70)
    return int.from_bytes(data, sys.byteorder, signed=True)


pid = received()
for number in SIGHUP, SIGINT, SIGTERM:
    signal(number, lambda number, _: posix.kill(pid, number))
ended = received()
if ended < 0:
    if -ended in {SIGHUP, SIGINT, SIGTERM}:
        signal(-ended, SIG_DFL)
    posix.kill(posix.getpid(), -ended)
posix._exit(ended)

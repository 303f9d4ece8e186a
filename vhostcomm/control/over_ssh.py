"""Reach the control surface of another host: its unix socket, forwarded by ssh. ssh authenticates and encrypts."""

from __future__ import annotations

import math
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final, Self

from attrs import define

from vhostcomm.config.ssh_address import Forwarded, SshAddress
from vhostcomm.linux.environment import child_environment
from vhostcomm.linux.system_errors import temporary_folder

CONNECT_TIMEOUT: Final = 10
"""Seconds for ssh to reach a host. A password or a passphrase may take longer."""

SHELL_TIMEOUT: Final = 10.0
"""Seconds from the connection until the remote shell answers. Its own files may print and compute, or hang."""

END_TIMEOUT: Final = 5.0
"""Seconds for ssh to end after its input did."""

_CONNECTED: Final = "vhostcomm: connected"
"""ssh prints this line after it has authenticated, which may have to wait for a password."""

_READY: Final = "vhostcomm: forwarded"
"""The remote shell prints this line. ssh has bound the local socket by then."""


_LINE_LIMIT: Final = 1 << 16
"""Bytes of an unfinished line to keep."""


@define
class _Tunnel:
    """An ssh that forwards one socket, until its input ends: with the block, and also if this process is killed."""

    forwarded: Forwarded
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    deadline: float = math.inf
    """Until when the remote shell must answer, on the monotonic clock."""
    _line: bytes = b""
    """The unfinished line."""

    @classmethod
    def start(cls, forwarded: Forwarded) -> Self | None:
        remote = forwarded.remote
        command = [
            "ssh", "-T", "-o", "ExitOnForwardFailure=yes", "-o", "ControlPath=none", "-o", f"ConnectTimeout={CONNECT_TIMEOUT}",
            # A host that is cut off ends the connection, which would otherwise last as long as a request.
            "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
            "-o", "PermitLocalCommand=yes", "-o", f"LocalCommand=echo {_CONNECTED}",
            *(["-p", remote.port] if remote.port else []),
            "-L", f"{forwarded.path}:{remote.path}", "--", remote.destination, f"echo {_READY}; exec cat > /dev/null",
        ]  # fmt: skip
        try:
            process = subprocess.Popen(  # noqa: S603 - ssh, and an address without flags
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
            )
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            forwarded.why_not = f"{remote}: ssh can't be started: {error.strerror}{'; apt-get install openssh-client' if missing else ''}"
            return None
        assert process.stdout
        return cls(forwarded, process, process.stdout)

    def read(self) -> bool:
        """Read what ssh prints. Return whether the wait is over: the socket exists, or ssh has ended."""
        data = os.read(self.output.fileno(), 4096)
        if not data:
            self._failed(f"ssh ended with {self.process.wait()}, see its message above")
            return True
        # What the remote shell's own files print may stand before it in the line.
        *lines, self._line = (self._line + data)[-_LINE_LIMIT:].split(b"\n")
        if any(each.strip().endswith(_CONNECTED.encode()) for each in lines):
            self.deadline = time.monotonic() + SHELL_TIMEOUT
        return any(each.strip().endswith(_READY.encode()) for each in lines)

    def give_up(self) -> None:
        """End ssh, because the remote shell hangs."""
        self.process.kill()
        self._failed(f"ssh is connected, but the shell there does not answer within {SHELL_TIMEOUT:g} s")

    def _failed(self, why: str) -> None:
        remote = self.forwarded.remote
        port = f"-p {remote.port} " if remote.port else ""
        self.forwarded.why_not = f"{remote}: {why}; try: ssh {port}{remote.destination} true"

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:  # such as a host that is cut off
            self.process.kill()
            self.process.wait()
        self.output.close()


def _wait(tunnels: Sequence[_Tunnel]) -> None:
    """Wait until each socket exists, or can't be made."""
    with selectors.DefaultSelector() as selector:
        for each in tunnels:
            selector.register(each.output, selectors.EVENT_READ, each)
        while waiting := [key.data for key in selector.get_map().values()]:
            left = min(each.deadline for each in waiting) - time.monotonic()
            for key, _ in selector.select(None if left == math.inf else max(left, 0.0)):
                if key.data.read():
                    selector.unregister(key.fileobj)
            for key in [*selector.get_map().values()]:
                if key.data.deadline <= time.monotonic():
                    key.data.give_up()
                    selector.unregister(key.fileobj)


@contextmanager
def forwarded(addresses: Sequence[SshAddress]) -> Iterator[list[Forwarded]]:
    """Forward the control surfaces of other hosts inside the block, all at once. One that fails has its reason."""
    if not addresses:
        yield []
        return
    folder = Path(tempfile.mkdtemp(prefix="vhostcomm-", dir=temporary_folder()))  # 0700
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        made = [Forwarded(each, folder / str(place)) for place, each in enumerate(addresses)]
        tunnels = []
        for each in made:
            if tunnel := _Tunnel.start(each):
                cleanup.callback(tunnel.end)
                tunnels.append(tunnel)
        _wait(tunnels)
        yield made

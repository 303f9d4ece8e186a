"""Reach the control surface of another host: its unix socket, forwarded by ssh. ssh authenticates and encrypts."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from attrs import define, field

from vhostcomm.config.ssh_address import Forwarded, SshAddress
from vhostcomm.environment import child_environment
from vhostcomm.system_errors import temporary_folder

CONNECT_TIMEOUT: Final = 10
"""Seconds for ssh to reach a host. A password or a passphrase may take longer."""

END_TIMEOUT: Final = 5.0
"""Seconds for ssh to end after its input did."""

_READY: Final = "vhostcomm: forwarded"
"""The remote shell prints this line. ssh has bound the local socket by then."""


@define
class _Tunnel:
    """An ssh that forwards one socket, until its input ends: with the block, and also if this process is killed."""

    forwarded: Forwarded
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        remote = self.forwarded.remote
        command = [
            "ssh", "-T", "-o", "ExitOnForwardFailure=yes", "-o", "ControlPath=none", "-o", f"ConnectTimeout={CONNECT_TIMEOUT}",
            # A host that is cut off ends the connection, which would otherwise last as long as a request.
            "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
            *(["-p", remote.port] if remote.port else []),
            "-L", f"{self.forwarded.path}:{remote.path}", "--", remote.destination, f"echo {_READY}; exec cat > /dev/null",
        ]  # fmt: skip
        try:
            self.process = subprocess.Popen(  # noqa: S603 - ssh, and an address without flags
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
            )
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            self.forwarded.why_not = f"{remote}: ssh can't be started: {error.strerror}{'; apt-get install openssh-client' if missing else ''}"

    def wait(self) -> None:
        """Wait until the socket is there, or ssh has ended."""
        if self.process is None:
            return
        assert self.process.stdout
        for line in self.process.stdout:
            # What the remote shell's own files print may stand before it in the line.
            if line.decode(errors="replace").strip().endswith(_READY):
                return
        remote = self.forwarded.remote
        port = f"-p {remote.port} " if remote.port else ""
        self.forwarded.why_not = f"{remote}: ssh ended with {self.process.wait()}, see its message above; try: ssh {port}{remote.destination} true"

    def end(self) -> None:
        if self.process is None:
            return
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        try:
            self.process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:  # such as a host that is cut off
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextmanager
def forwarded(addresses: Sequence[SshAddress]) -> Iterator[list[Forwarded]]:
    """Forward the control surfaces of other hosts inside the block, all at once. One that fails has its reason."""
    if not addresses:
        yield []
        return
    folder = Path(tempfile.mkdtemp(prefix="vhostcomm-", dir=temporary_folder()))  # 0700
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        tunnels = [_Tunnel(Forwarded(each, folder / str(place))) for place, each in enumerate(addresses)]
        for each in tunnels:
            cleanup.callback(each.end)
            each.start()
        for each in tunnels:
            each.wait()
        yield [each.forwarded for each in tunnels]

"""An ssh server for tests, on the loopback: it runs commands in a shell that greets, and forwards connections to unix sockets.

The shell of the user `hangs` does not answer.

`python -m tests.control.sshd KEY AUTHORIZED` prints its port, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import asyncssh


class Server(asyncssh.SSHServer):
    def unix_connection_requested(self, dest_path: str) -> bool:
        return bool(dest_path)


async def _execute(process: asyncssh.SSHServerProcess[bytes]) -> None:
    if process.get_extra_info("username") == "hangs":
        await process.stdin.read()
        return
    assert process.command
    shell = await asyncio.create_subprocess_shell(
        f"printf 'Welcome. '; {process.command}", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    await process.redirect(stdin=shell.stdin, stdout=shell.stdout)
    process.exit(await shell.wait())


async def main(key: str, authorized: str) -> None:
    listener = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Server, server_host_keys=[key], authorized_client_keys=authorized,
        process_factory=_execute, encoding=None,
    )  # fmt: skip
    print(listener.get_port(), flush=True)  # noqa: T201 - for the test
    with suppress(asyncio.CancelledError):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    listener.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

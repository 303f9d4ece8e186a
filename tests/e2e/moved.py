"""A QEMU that a test runs beside `vhostcomm serve`, to save, restore, migrate or reset its guest by QMP."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.launched import BOOT_TIMEOUT, Console, Images, command_of
from tests.serving import is_listening, started, until


class Monitor:
    """A blocking QMP client."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(BOOT_TIMEOUT)
        # The socket's file exists before QEMU listens.
        until(lambda: self.sock.connect_ex(str(path)) == 0, "QEMU's monitor", BOOT_TIMEOUT)
        self._lines = self.sock.makefile("r")
        json.loads(self._lines.readline())
        self.do("qmp_capabilities")

    def close(self) -> None:
        self._lines.close()
        self.sock.close()

    def do(self, command: str, **arguments: Any) -> Any:
        self.sock.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        for line in self._lines:
            answer = json.loads(line)
            if "event" not in answer:
                assert "return" in answer, answer
                return answer["return"]
        raise AssertionError(f"QEMU ended in {command}")

    def human(self, line: str) -> None:
        said = self.do("human-monitor-command", **{"command-line": line})
        assert not said, said

    def connect_chardev_to(self, sock: Path) -> None:
        """Connect the guest's channel to another socket. QEMU rejects that while its machine is stopped."""
        address = {"type": "unix", "data": {"path": str(sock)}}
        backend = {"type": "socket", "data": {"addr": address, "server": False}}
        self.do("chardev-change", id="charchannel0", backend=backend)

    def save_to(self, uri: str) -> None:
        """Migrate the guest; return when the migration is complete."""
        self.do("migrate", uri=uri)
        until(self._migrated, "the migration", BOOT_TIMEOUT)

    def save(self, file: Path) -> None:
        """Save the machine to a file through a socket, because QEMU's sandbox can't start a program that would write the file."""
        place = file.with_suffix(".sock")
        with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
            listener.bind(str(place))
            listener.listen()
            saved = pool.submit(_receive, listener)
            self.save_to(f"unix:{place}")
            file.write_bytes(saved.result())

    def _migrated(self) -> bool:
        status = self.do("query-migrate").get("status")
        assert status not in {"failed", "cancelled"}, self.do("query-migrate")
        return bool(status == "completed")


def _receive(listener: socket.socket) -> bytes:
    listener.settimeout(BOOT_TIMEOUT)
    stream, _ = listener.accept()
    with stream, stream.makefile("rb") as file:
        return file.read()


def restore(file: Path, incoming: Path) -> None:
    """Send a saved machine to a QEMU that waits for a migration."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(incoming))
        sock.sendall(file.read_bytes())


class Machine:
    """A running QEMU."""

    def __init__(self, process: subprocess.Popen[bytes], monitor: Monitor, console: Console) -> None:
        self.process = process
        self.monitor = monitor
        self.console = console

    def quit(self) -> None:
        self.monitor.do("quit")
        self.ends()

    def ends(self) -> None:
        assert self.process.wait(BOOT_TIMEOUT) == 0


@contextmanager
def machine(
    folder: Path, images: Images, sock: Path, name: str = "one", *extra: str, **parameters: object
) -> Iterator[Machine]:
    """Start a QEMU whose guest's channel connects to that socket."""
    console, qmp = Console(folder / f"console-{name}"), folder / f"qmp-{name}"
    *shell, command = command_of(
        *images.direct(**parameters), "--sock", str(sock), "--serial-console", str(console.path), "--name", "nas"
    )
    more = " ".join(["-qmp", f"unix:{qmp},server=on,wait=off", *extra])
    with started([*shell, f"{command.strip()} {more}"], stdin=subprocess.DEVNULL) as process:
        until(lambda: is_listening(qmp) or process.poll() is not None, "QEMU's monitor", BOOT_TIMEOUT)
        monitor = Monitor(qmp)
        with closing(monitor):
            yield Machine(process, monitor, console)

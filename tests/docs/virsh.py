"""`virsh` for the pages: a program of that name, behind which is a libvirt of the test's own."""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.e2e.libvirt import PATIENCE, Libvirt, needed

_PROGRAM: Final = """\
#!{python}
import json, os, socket, sys
words = [os.path.abspath(word) if os.path.exists(word) else word for word in sys.argv[1:]]
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect({place!r})
    asked.sendall(json.dumps(words).encode() + b"\\n")
    status, told = json.load(asked.makefile())
print(told)
sys.exit(status)
"""


@contextmanager
def virsh(folder: Path, programs: Path) -> Iterator[None]:
    """Put `virsh` there, among the page's programs. It is one libvirt, which ends with the context, and what it runs with it.

    Skips the test where libvirt can't run.
    """
    home = folder / "libvirt"
    home.mkdir()
    needed(home)
    with Libvirt(home) as libvirt:

        class Asked(socketserver.StreamRequestHandler):
            timeout = PATIENCE

            def handle(self) -> None:
                words = json.loads(self.rfile.readline())
                try:
                    answer = 0, libvirt.tell(*words)
                except AssertionError as error:
                    answer = 1, str(error)
                self.wfile.write(json.dumps(answer).encode())

        place = str(folder / "virsh.sock")
        with socketserver.UnixStreamServer(place, Asked) as server:
            program = programs / "virsh"
            program.write_text(_PROGRAM.format(python=sys.executable, place=place))
            program.chmod(0o755)
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()  # which waits for a request, as long as libvirt may take
                thread.join(PATIENCE)

"""`virsh` for the pages: a program of that name that uses a private libvirt."""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.e2e.libvirt import TIMEOUT, Libvirt, needed

_PROGRAM: Final = """\
#!{python}
import json, os, socket, sys
words = [os.path.abspath(word) if os.path.exists(word) else word for word in sys.argv[1:]]
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect({place!r})
    asked.sendall(json.dumps(words).encode() + b"\\n")
    status, answer = json.load(asked.makefile())
print(answer)
sys.exit(status)
"""


@contextmanager
def virsh(folder: Path, programs: Path) -> Iterator[None]:
    """Put `virsh` among the page's programs. Its libvirt, with everything that it started, ends with the context.

    Skips the test where libvirt can't run.
    """
    home = folder / "libvirt"
    home.mkdir()
    needed(home)
    with Libvirt(home) as libvirt:

        class Asked(socketserver.StreamRequestHandler):
            timeout = TIMEOUT

            def handle(self) -> None:
                words = json.loads(self.rfile.readline())
                try:
                    answer = 0, libvirt.run(*words)
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
                server.shutdown()  # waits for a request to end, as long as libvirt needs
                thread.join(TIMEOUT)

"""A shell at a terminal, in which a test types as a user does."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.serving import TIMEOUT, end

TAB, CLEAR, REPORT = "\t", "\x15", "\x14"

_RC = {
    "bash": """\
PS1='> '
source /usr/share/bash-completion/bash_completion
report() {{ printf '%s\\0' "$READLINE_LINE" >{fifo}; }}
bind -x '"\\C-t": report'
PROMPT_COMMAND="printf 'ready\\0' >{fifo}"
{setup}
{after}
""",
    "zsh": """\
PS1='> '
{setup}
autoload -Uz compinit && compinit -u -D
{after}
report() {{ printf '%s\\0' "$BUFFER" >{fifo} }}
ready() {{ printf 'ready\\0' >{fifo} }}
zle -N report
bindkey '^T' report
zle -N zle-line-init ready
""",
}


class Shell:
    """An interactive bash or zsh without a user's settings.

    Args:
        setup: additional lines of its rc file, before compinit in zsh; `after` has lines for after it.
    """

    def __init__(self, name: str, folder: Path, env: dict[str, str], setup: str = "", after: str = "") -> None:
        self._fifo = folder / "fifo"
        os.mkfifo(self._fifo)
        self._reports = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        rc = folder / (".zshrc" if name == "zsh" else "rc")
        rc.write_text(_RC[name].format(fifo=self._fifo, setup=setup, after=after))
        command = ["bash", "--noprofile", "--rcfile", str(rc), "-i"] if name == "bash" else ["zsh", "-d", "-i"]
        self._terminal, end = pty.openpty()
        self.shown = b""
        setsid = shutil.which("setsid")
        assert setsid
        self._process = subprocess.Popen(
            [setsid, "--ctty", *command],
            stdin=end, stdout=end, stderr=end, cwd=folder,
            env=env | {"TERM": "dumb", "ZDOTDIR": str(folder), "HOME": str(folder), "INPUTRC": "/dev/null"},
        )  # fmt: skip
        os.close(end)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        try:
            assert self._reported() == "ready"
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        end(self._process)
        self._reader.join(TIMEOUT)
        os.close(self._terminal)
        os.close(self._reports)

    def complete(self, line: str) -> str:
        """Return the line after a TAB at its end."""
        os.write(self._terminal, f"{CLEAR}{line}{TAB}{REPORT}".encode())
        return self._reported()

    def _reported(self) -> str:
        data = b""
        while not data.endswith(b"\0"):
            ready, _, _ = select.select([self._reports], [], [], TIMEOUT)
            assert ready, f"nothing came; on the screen: {self.shown!r}"
            data += os.read(self._reports, 4096)
        return data[:-1].decode()

    def _read(self) -> None:
        try:
            while got := os.read(self._terminal, 4096):
                self.shown += got
        except OSError:  # the shell has ended
            pass

"""A page's shell: one bash in a separate folder, which runs the page's commands one after the other."""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from tests.docs.pages import ROOT, Command, matches
from tests.forked import forking
from tests.serving import ENVIRONMENT, held_port, until
from tests.wireshark.looking import UNPRIVILEGED

TIMEOUT: Final = 100.0
"""Seconds for one command: one waits until a guest in an emulator has booted, another until it has powered itself off."""

SERVING: Final = re.compile(r"^(sudo |\w+=\S+ )*vhostcomm serve .*&$", re.DOTALL)
"""A background daemon. Only the page's end waits for its start, the following commands do not."""

READY: Final = "serving"
"""The event that ends a daemon's start. During the start, SIGTERM would kill the daemon instead of giving status 0."""

OURS: Final = re.compile(r"^(sudo |\w+=\S+ )*(vhostcomm|\./vdsm_run\.py|vdsm_run|qemu-host) .*&$", re.DOTALL)
"""A background command of one of our programs. Its log goes to a file, to keep it out of later output."""


def _cache() -> Path:
    """Return the folder of the stand-in guest's builds, as tests/guest/build.sh does."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("VHOSTCOMM_CACHE") or Path(caches, "vhostcomm"))


class Shell:
    """Bash, with our programs on PATH.

    Resources that the machine may use are replaced: some folders and the home by the page's folders, the ports 5000 and
    12345 by free ports.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._outputs: list[Path] = []
        """The outputs of background programs."""
        self._quiet: dict[str, Path] = {}
        """Commands of background programs that must not print to the terminal."""
        self._serving = 0
        """The number of background daemons."""
        for name in "bin", "run", "etc/systemd/system", "var/lib/vz/snippets":
            (folder / name).mkdir(parents=True)
        for name in "captures", "protocol", "tests", "vdsm_run.py":
            (folder / name).symlink_to(ROOT / name)
        if UNPRIVILEGED and (tshark := shutil.which("tshark")):
            (folder / "bin/tshark").write_text(f'#!/bin/sh\nexec {shlex.join([*UNPRIVILEGED, tshark])} "$@"\n')
            (folder / "bin/tshark").chmod(0o755)
        (folder / ".cache").mkdir()
        (folder / ".cache/vhostcomm").symlink_to(_cache())
        self._held = ExitStack()
        ports = [self._held.enter_context(held_port()) for _ in range(2)]
        self._ours = {
            "/run/": f"{folder}/run/",
            **{
                place: f"{folder}{place}"
                for place in (
                    "/etc/vhostcomm",
                    "/etc/pve",
                    "/etc/systemd/system",
                    "/var/lib/vz/snippets",
                    "/var/lib/vhostcomm-run-nas",
                )
            },
            "/opt/vhostcomm/bin/": f"{Path(sys.executable).parent}/",
            "5000:5000": f"{ports[0]}:5000",
            "5000-:5000": f"{ports[0]}-:5000",
            "127.0.0.1:12345": f"127.0.0.1:{ports[1]}",
            ".web-12345.secret": f".web-{ports[1]}.secret",
        }
        self._provided = self._files()
        """Files that the page's commands did not make."""

    def __enter__(self) -> Self:
        theirs, ours = os.pipe()
        environment = ENVIRONMENT | {
            "RUNTIME_DIRECTORY": f"{self.folder}/run/vhostcomm",
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": f"{self.folder}/.config",
            "XDG_CACHE_HOME": f"{self.folder}/.cache",
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
            "PS1": "",
        }
        programs = Path(sys.executable).parent
        forked = forking(programs / "vhostcomm", environment).parent
        environment["PATH"] = f"{self.folder}/bin:{forked}:{programs}:{os.environ['PATH']}:/usr/sbin:/sbin"
        self.bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            cwd=self.folder,
            env=environment,
            pass_fds=[ours],
            start_new_session=True,
        )
        os.close(ours)
        self._statuses = os.fdopen(theirs, "rb", buffering=0)
        self._to = ours
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the background programs by their process ids, and check their exit statuses."""
        assert self.bash.stdin
        bad: dict[str, str] = {}
        try:
            if kind is None:
                until(lambda: self.background().count(READY) >= self._serving or not self._ask("jobs -r"), f"{READY!r}")
            for pid in reversed(self._ask("jobs -p").split()) if kind is None else ():
                status = self._ask(f"kill {pid} 2>/dev/null; wait {pid}; echo $?").strip()
                if status != "0":
                    bad[pid] = status
        finally:
            if self.bash.poll() is None:
                os.killpg(self.bash.pid, signal.SIGKILL)  # the session has only this shell and its programs
            self.bash.stdin.close()
            self.bash.wait(TIMEOUT)
            self._statuses.close()
            self._held.close()
        amid = {text: path.read_text() for text, path in self._quiet.items() if path.stat().st_size}
        assert kind is not None or not amid, f"it writes amid what the page shows: {amid}"
        assert not bad, f"{bad} of the background ended badly:\n{self.background()}"

    def assert_prints(self, command: Command, status: int, where: str) -> None:
        """Run a command, and assert that its status and output are those of the page."""
        number = len(list(self.folder.glob(".out.*")))
        output = self.folder / f".out.{number}"
        found = self._do(self.ours(command.text), output)
        printed = output.read_text(errors="replace")
        for shown, ours in self._ours.items():
            printed = printed.replace(ours, shown)
        assert found == status, f"{where}: $ {command.text}\nended with {found}:\n{printed}\n{self.background()}"
        if command.text.endswith("&"):
            self._outputs.append(output)
        self._serving += bool(SERVING.match(command.text))
        if OURS.match(command.text):
            self._quiet[command.text] = output
        if command.output:
            assert matches(command.output, printed), (
                f"{where}: $ {command.text}\nprinted\n{printed}\nand the page says\n{command.output}\n{self.background()}"
            )

    def left_behind(self) -> list[str]:
        """Return the files that the page's commands made and did not remove."""
        return sorted(self._files() - self._provided)

    @contextmanager
    def providing(self) -> Iterator[None]:
        """Count the files that are made in the context as the reader's own, which the page need not remove."""
        before = self._files()
        yield
        self._provided |= self._files() - before

    def _files(self) -> set[str]:
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if not path.is_dir())
        return {str(path) for path in found if not path.parts[0].startswith((".out.", ".asked", "libvirt", "virsh"))}

    def background(self) -> str:
        """Return the output of the background programs."""
        logs = [*self._outputs, *sorted(self.folder.glob("*.log"))]
        return "".join(path.read_text(errors="replace") for path in logs)

    def ours(self, text: str) -> str:
        """Return the page's text with the replaced folders and ports."""
        for shown, ours in self._ours.items():
            text = text.replace(shown, ours)
        return text

    def _ask(self, text: str) -> str:
        output = self.folder / ".asked"
        self._do(text, output)
        return output.read_text()

    def _do(self, text: str, output: Path) -> int:
        assert self.bash.stdin
        # With the braces, a background command stays a child of this shell, and its output stays separate.
        script = f"{{ {text}\n}} >{output} 2>&1 </dev/null; echo $? >&{self._to}\n"
        self.bash.stdin.write(script.encode())
        self.bash.stdin.flush()
        ready, _, _ = select.select([self._statuses], [], [], TIMEOUT)
        if not ready:
            raise AssertionError(
                f"$ {text}\ndoes not end; it said:\n{output.read_text(errors='replace')}\n{self.background()}"
            )
        line = self._statuses.readline()
        assert line, f"$ {text}\nended the shell"
        return int(line)

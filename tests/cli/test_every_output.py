"""Every verb with a full, closed or no longer read standard output: a one-line error and the documented exit status.

These processes are forked. In `test_streams.py`, a shell starts some with closed or full streams.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from attrs import frozen

from tests.captures.make_golden import FOLDER
from tests.cli.verbs import all_verbs
from tests.control.controlled import INFORMATION, Answers, answering
from tests.forked import CLOSED, Forked
from tests.install import pats
from tests.qemu.disks import sparse
from tests.serving import (
    ENVIRONMENT,
    TIMEOUT,
    FakeGuest,
    Serving,
    end,
    fake_guest,
    is_listening,
    run_vhostcomm,
    started,
    until,
)  # fmt: skip
from vchannel import GuestCommand, HostCommand

SHORT: Final = str(FOLDER / "graceful-stop.jsonl")
LONG: Final = str(FOLDER / "damage.jsonl")

FULL: Final = "vhostcomm: standard output: No space left on device; make room there, or choose another place\n"
NONE: Final = "vhostcomm: standard output is closed, nothing can be printed; redirect it to a file, or to /dev/null\n"
NEW: Final = "NEW"
"""A placeholder for the path of a new file."""

WORK: Final = [
    ["version"],
    ["help", "serve"],
    ["config", "show"],
    ["config", "init", NEW],
    ["config", "validate", "--sock", "nas=/run/nas"],
    ["completion", "bash", "--program", "vdsm_run"],
    *(["snippet", kind, "--sock", "nas=/run/nas"] for kind in ("qemu", "libvirt", "hookscript", "compose")),
    ["snippet", "systemd", "--sock", "d990d22a-e971-ef5f-a7b3-e6374e496b34"],
    ["snippet", "proxmox", "--sock", "nas=/run/nas", "--vmid", "100"],
    ["capture", "show", LONG],
    ["capture", "redact", LONG],
    ["capture", "diff", SHORT, LONG],
    ["capture", "export", LONG, "-o", "-"],
    ["disk", "init", NEW, "--size", "16G"],
]
ASKING: Final = [
    ["guests"],
    ["guests", "--json"],
    ["info", "nas"],
    ["info", "nas", "--json"],
    ["call", "nas", "2"],
    ["freeze", "nas"],
    ["thaw", "nas"],
    ["reboot", "nas"],
    ["shutdown", "nas"],
    ["reload"],
]
OF_MACHINES: Final = [["resume"], ["balloon"], ["balloon", "--json"]]
TRIED: Final = (
    {" ".join(words[:2]) for words in WORK}
    | {words[0] for words in ASKING + OF_MACHINES}
    | {"disk inspect", "disk add", "disk grow", "install", "run", "serve", "probe", "capture replay", "events"}
)
HELPED: Final = [words for words in all_verbs() if " ".join(words) not in {*TRIED, "help"}]
"""Groups of verbs, and verbs whose output only a page needs. Only their help is printed."""


def forked(words: list[str], stdout: int, **more: str) -> Forked:
    return Forked(words, stdout=stdout, stderr=subprocess.PIPE, env=ENVIRONMENT | more)


def ended(process: Forked) -> tuple[int, str]:
    """Return a process's exit status and its standard error, which has few lines."""
    assert process.stderr
    try:
        return process.wait(TIMEOUT), process.stderr.read().decode()
    finally:
        end(process)
        process.stderr.close()


def assert_fails_in_one_line(
    *words: str,
    new: Path | None = None,
    prepare: Callable[[], None] = lambda: None,
    begun: Callable[[Forked], None] = lambda _: None,
    **more: str,
) -> None:
    """Notes of a snippet, a replay or an installation precede that line on standard error."""
    reading, unread = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    notes: set[str] = set()
    try:
        for stdout, status, error in (full, 1, FULL), (CLOSED, 1, NONE), (unread, 0, ""):
            prepare()
            process = forked([str(new) if word == NEW else word for word in words], stdout, **more)
            begun(process)
            code, errors = ended(process)
            assert (code, errors.endswith(error)) == (status, True), (stdout, code, errors)
            notes.add(errors.removesuffix(error))
            if new:
                shutil.rmtree(new) if new.is_dir() else new.unlink(missing_ok=True)
    finally:
        os.close(unread)
        os.close(full)
    assert len(notes) == 1
    assert notes == {""} or words[0] in {"snippet", "install"} or "replay" in words


@pytest.mark.parametrize("words", HELPED, ids=" ".join)
@pytest.mark.slow
def test_help_of_verbs(words: tuple[str, ...]) -> None:
    assert_fails_in_one_line(*words, "--help")


@pytest.mark.parametrize("words", WORK, ids=lambda words: " ".join(words[:2]))
@pytest.mark.slow
def test_work_of_verbs_without_a_daemon(words: list[str], tmp_path: Path) -> None:
    assert_fails_in_one_line(*words, new=tmp_path / "new" if NEW in words else None)


@frozen
class Daemon:
    """A daemon with two guests: `nas` answers its host, and the test controls `other`."""

    folder: Path
    control: str
    other: FakeGuest


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("daemon")
    config = folder / "vhostcomm.toml"
    config.write_text("".join(f'[guests.{name}]\nsock = "{folder}/{name}"\n' for name in ("nas", "other", "third")))
    answers: Answers = {**{int(each): b"" for each in GuestCommand}, 10: INFORMATION, 2: b"10.0.2.15\0"}
    with (
        Serving("--config", config, "--control", folder / "control"),
        answering(folder / "nas", answers),
        fake_guest(folder / "other") as other,
    ):
        yield Daemon(folder, str(folder / "control"), other)


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
@pytest.mark.slow
def test_work_of_verbs_that_ask_a_daemon(words: list[str], daemon: Daemon) -> None:
    assert_fails_in_one_line(*words, VHOSTCOMM_CONTROL=daemon.control)


@pytest.mark.parametrize("words", [["events"], ["events", "--json"]], ids=" ".join)
@pytest.mark.slow
def test_events(words: list[str], daemon: Daemon) -> None:
    """The first event is the first line whose output fails."""

    def reboot_until_it_ends(process: Forked) -> None:
        deadline = time.monotonic() + TIMEOUT
        while process.poll() is None:  # no event shows that it is connected
            assert time.monotonic() < deadline, f"{process.args} does not end"
            daemon.other.serial()
            daemon.other.send(HostCommand.GUEST_POWER, b"on\0", needs_response=False)

    assert_fails_in_one_line(*words, begun=reboot_until_it_ends, VHOSTCOMM_CONTROL=daemon.control)


@pytest.mark.parametrize("words", [["probe"], ["capture", "replay", SHORT, "--ignore-identity"]], ids=" ".join)
def test_verbs_that_act_as_a_guest(words: list[str], daemon: Daemon) -> None:
    assert_fails_in_one_line(*words, "--sock", str(daemon.folder / "third"))


@pytest.mark.slow
@pytest.mark.needs("mke2fs", "debugfs", "e2fsck", "sfdisk")
def test_install(tmp_path: Path) -> None:
    """The disks are complete before the failure, because the directory's name is printed last."""
    assert_fails_in_one_line("install", str(pats.pat(tmp_path)), NEW, "--data", "1G", new=tmp_path / "nas")


@pytest.mark.slow
@pytest.mark.needs("mke2fs", "debugfs", "e2fsck", "sfdisk", "qemu-img")
def test_work_of_verbs_on_disks(tmp_path: Path) -> None:
    nas = tmp_path / "nas"
    done = run_vhostcomm("install", pats.pat(tmp_path), nas, "--data", "1G")
    assert done.returncode == 0, done.stderr
    assert_fails_in_one_line("disk", "inspect", str(nas / "system.img"))
    assert_fails_in_one_line("disk", "add", str(nas), "--size", "1G")
    data = nas / "data.img"
    grow = ("disk", "grow", str(data), "--size", "2G")
    assert_fails_in_one_line(*grow, prepare=lambda: os.truncate(data, 1 << 30))


@pytest.mark.slow
@pytest.mark.needs("qemu-system-x86_64")
def test_command_of_run(tmp_path: Path) -> None:
    boot = sparse(tmp_path / "boot.img", 1 << 20)
    assert_fails_in_one_line("run", "--boot", str(boot), "--accel", "tcg", "--dry-run", "--log-level", "error")


@pytest.mark.slow
@pytest.mark.needs("qemu-system-x86_64")
def test_work_of_verbs_on_machines(tmp_path: Path) -> None:
    config, qmp, control = tmp_path / "c.toml", tmp_path / "qmp", tmp_path / "control"
    config.write_text(f'[guests.nas]\nsock = "{tmp_path}/nas"\nqmp = "{qmp}"\n')
    qemu = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "tcg", "-S"]
    machine = ["-device", "virtio-balloon-pci", "-qmp", f"unix:{qmp},server=on,wait=off"]
    with started(qemu + machine), Serving("--config", config, "--control", control) as daemon:
        daemon.event("QMP connected")
        for words in OF_MACHINES:
            assert_fails_in_one_line(*words, VHOSTCOMM_CONTROL=str(control))


@pytest.mark.parametrize("output", ["full", "closed", "unread"])
def test_serve_continues_without_its_log(tmp_path: Path, output: str) -> None:
    """The daemon's log is on standard output. Lines are lost, but all guests are still served."""
    reading, unread = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        stdout = {"full": full, "closed": CLOSED, "unread": unread}[output]
        process = forked(["serve", "--sock", str(tmp_path / "nas"), "--log-level", "debug"], stdout)
        try:
            until(lambda: is_listening(tmp_path / "nas"), "the socket")
            for _ in range(3):
                with fake_guest(tmp_path / "nas") as guest:
                    assert guest.serial()
            process.send_signal(signal.SIGTERM)
        finally:
            code, errors = ended(process)
    finally:
        os.close(unread)
        os.close(full)
    assert code == 0
    assert "Traceback" not in errors
    assert len(errors.splitlines()) <= 1

"""A reload when the content of the configuration's files changes."""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.control.controlled import client
from tests.hanging import Hanging
from tests.serving import TIMEOUT, Serving, fake_guest, run_vhostcomm
from tests.trio_help import run_in_real_time
from vhostcomm.config.files import fingerprint
from vhostcomm.daemon import changes
from vhostcomm.daemon.changes import READ_SHARE_MAX, Changes
from vhostcomm.linux.threads import in_thread
from vhostcomm.log.logs import start_log

REJECTED = "reload rejected, the old configuration stays"
RELOADING = "reloading"


def text(folder: Path, serial: str) -> str:
    return f'[guests.nas]\nsock = "{folder}/nas"\nserial = "{serial * 13}"\n'


def replace(path: Path, content: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(content)
    new.rename(path)


@pytest.mark.slow
def test_a_replaced_or_rewritten_file_is_reloaded(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text(tmp_path, "A"))
    with Serving("--config", path, "--reload-on-change") as daemon, fake_guest(tmp_path / "nas") as guest:
        assert guest.serial() == "A" * 13
        replace(path, text(tmp_path, "B"))
        assert daemon.event("reloaded")["changed"] == 1
        assert guest.serial() == "B" * 13
        path.write_text(text(tmp_path, "C"))
        assert daemon.event("reloaded")["changed"] == 1
        assert guest.serial() == "C" * 13


@pytest.mark.slow
def test_a_change_that_inotify_does_not_report_is_found(tmp_path: Path) -> None:
    """For example, another host changes a file in Proxmox VE's /etc/pve."""
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "conf.d" / "c.toml"
    elsewhere.write_text(text(tmp_path, "A"))
    path.parent.mkdir()
    path.symlink_to(elsewhere)
    with Serving("--config", path.parent, "--reload-on-change") as daemon, fake_guest(tmp_path / "nas") as guest:
        assert guest.serial() == "A" * 13
        elsewhere.write_text(text(tmp_path, "B"))
        daemon.event("reloaded")
        assert guest.serial() == "B" * 13


@pytest.mark.slow
def test_a_folder_that_is_away_changes_nothing_and_is_reported_once(tmp_path: Path) -> None:
    folder, away = tmp_path / "conf.d", tmp_path / "away"
    folder.mkdir()
    (folder / "a.toml").write_text(text(tmp_path, "A"))
    words = ("--config", folder, "--reload-on-change", "--control", tmp_path / "control")
    with (
        Serving(*words) as daemon,
        fake_guest(tmp_path / "nas") as guest,
        client(tmp_path / "control") as http,
    ):
        assert guest.serial() == "A" * 13
        folder.rename(away)
        assert f"{folder}: No such file" in daemon.event(REJECTED)["why"]
        folder.mkdir()  # an empty mount point, for example
        assert f"{folder}: a directory without a *.toml file" in daemon.event(REJECTED)["why"]
        assert f"{folder}: a directory without" in http.get("/healthz").json()["not_reloaded"]
        assert guest.serial() == "A" * 13
        (folder / "README").write_text("wakes it up, and changes nothing")
        replace(folder / "a.toml", "[guests.nas")
        assert f"{folder}/a.toml: not TOML" in daemon.event(REJECTED)["why"]
        replace(folder / "a.toml", text(tmp_path, "A"))
        assert daemon.event("reloaded")["changed"] == 0  # the same as before: accepted, so that health is right again
        assert http.get("/healthz").json()["not_reloaded"] is None
        assert guest.serial() == "A" * 13
        replace(folder / "b.toml", '[guests.nas]\nserial = "BBBBBBBBBBBBB"\n')
        assert daemon.event("reloaded")["changed"] == 1
        (folder / "b.toml").unlink()
        assert daemon.event("reloaded")["changed"] == 1
        assert guest.serial() == "A" * 13
    assert len([line for line in daemon.log if line["event"] == REJECTED]) == 3
    assert len([line for line in daemon.log if line["event"] == RELOADING]) == 6


def test_reload_on_change_needs_a_file() -> None:
    ended = run_vhostcomm("serve", "--sock", "/x/nas", "--reload-on-change")
    assert (ended.returncode, "give it with --config" in ended.stderr) == (2, True)


@pytest.mark.parametrize("instances", ["some", "none"])
def test_a_half_written_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instances: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text(tmp_path, "A"))
    known = fingerprint([path])
    half = text(tmp_path, "B")
    whole = half + '[guests.attic]\nsock = "/x/attic"\n'

    def look(paths: Sequence[Path]) -> str:
        """The rest is written as soon as the half was seen."""
        found = fingerprint(paths)
        if path.read_text() == half:
            path.write_text(whole)
        return found

    monkeypatch.setattr(changes, "fingerprint", look)
    if instances == "none":
        monkeypatch.setattr(changes, "INotify", _none_left)
    log, sink = start_log("info", "json")
    seen: list[str] = []

    async def reload() -> str:
        seen.append(path.read_text())
        done.set()
        return ""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Changes([path], known).run, reload, log)
            path.write_text(half)
            await done.wait()
            nursery.cancel_scope.cancel()

    done = trio.Event()
    try:
        run_in_real_time(main)
    finally:
        sink.close(1.0)
    assert seen == [whole]


def test_each_file_of_a_folder_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files of a folder share one watch. The interval of an hour leaves no periodic looks here."""
    paths = [tmp_path / "a.toml", tmp_path / "b.toml"]
    for path in paths:
        path.touch()
    monkeypatch.setattr(changes, "POLL_INTERVAL", 3600.0)
    reloads: list[trio.Event] = [trio.Event(), trio.Event()]
    log, sink = start_log("info", "json")
    left = iter(reloads)

    async def reload() -> str:
        next(left).set()
        return ""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Changes(paths, "").run, reload, log)  # the first reload is for the initial content
            await reloads[0].wait()
            paths[0].write_text("# changed")
            await reloads[1].wait()
            nursery.cancel_scope.cancel()

    try:
        run_in_real_time(main)
    finally:
        sink.close(1.0)
    assert next(left, None) is None, "one reload for each change"


class _Waiting(type(Path())):  # type: ignore[misc]
    """A file whose first look waits and then fails, as on a file system that hangs until it is unmounted."""

    asked = threading.Event()
    returns = threading.Event()
    looker = 0

    def is_dir(self) -> bool:
        if not _Waiting.looker:
            _Waiting.looker = threading.get_ident()
            self.asked.set()
            assert self.returns.wait(TIMEOUT)
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return bool(super().is_dir())


def test_abandoned_look_changes_no_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interval of an hour leaves no periodic looks here."""
    paths: list[Path] = [tmp_path / "a.toml", _Waiting(tmp_path / "b.toml")]
    for path in paths:
        path.touch()
    monkeypatch.setattr(changes, "READ_TIMEOUT", 0.1)
    monkeypatch.setattr(changes, "POLL_INTERVAL", 3600.0)
    late = threading.Event()

    def look(paths: Sequence[Path]) -> str:
        found = fingerprint(paths)
        if threading.get_ident() == _Waiting.looker:
            late.set()
        return found

    monkeypatch.setattr(changes, "fingerprint", look)
    reloads: list[trio.Event] = [trio.Event(), trio.Event()]
    left = iter(reloads)
    log, sink = start_log("info", "json")

    async def reload() -> str:
        next(left).set()
        return ""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Changes(paths, "").run, reload, log)
            await reloads[0].wait()
            assert _Waiting.asked.is_set()
            _Waiting.returns.set()
            assert await trio.to_thread.run_sync(late.wait, TIMEOUT)
            paths[1].write_text("# changed")
            await reloads[1].wait()
            nursery.cancel_scope.cancel()

    try:
        run_in_real_time(main, limit=TIMEOUT)
    finally:
        sink.close(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("noisy", [False, True])
def test_looks_take_a_twentieth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noisy: bool) -> None:
    """Each look takes 3 s here. If it finds a change (`noisy`), the second look follows at once."""
    clock = trio.testing.MockClock()
    looks: list[float] = []
    path = tmp_path / "c.toml"

    def look(_: Sequence[Path]) -> str:
        looks.append(trio.from_thread.run_sync(trio.current_time))
        trio.from_thread.run_sync(clock.jump, 3.0)
        if noisy:
            path.write_text(str(len(looks)))
        return str(len(looks)) if noisy else ""

    monkeypatch.setattr(changes, "fingerprint", look)
    monkeypatch.setattr(changes, "READ_TIMEOUT", math.inf)
    log, sink = start_log("info", "json")

    async def reload() -> str:
        raise AssertionError("the content is never stable")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Changes([path], "").run, reload, log)
            while len(looks) < 8:
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(0.25)
            nursery.cancel_scope.cancel()

    try:
        run_in_real_time(main, clock=clock, limit=math.inf)
    finally:
        sink.close(1.0)
    assert (looks[7] - looks[0]) * READ_SHARE_MAX >= 6 * 3.0, looks


def _none_left(*, nonblocking: bool) -> None:
    assert nonblocking
    raise OSError(24, os.strerror(24))


@pytest.mark.slow
def test_a_file_system_that_hangs_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "c.toml").write_text(text(tmp_path, "A"))
    known = fingerprint([folder])
    monkeypatch.setattr(changes, "READ_TIMEOUT", 0.3)
    monkeypatch.setattr(changes, "POLL_INTERVAL", 0.1)
    log, sink = start_log("info", "json")
    send, receive = trio.open_memory_channel[str](10)
    begun, readings = trio.open_memory_channel[None](math.inf)

    async def counted(place: Hashable, call: Callable[[], Any]) -> Any:
        await begun.send(None)
        return await in_thread(place, call)

    monkeypatch.setattr(changes, "in_thread", counted)

    async def reload() -> str:
        await send.send("asked")
        return ""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            with Hanging(folder) as hanging:
                nursery.start_soon(Changes([folder], known).run, reload, log)
                await trio.to_thread.run_sync(hanging.asked)
                assert await receive.receive() == "asked"
                for _ in range(readings.statistics().current_buffer_used + 3):  # each but the last has ended by then
                    await readings.receive()
                assert receive.statistics().current_buffer_used == 0
            assert await receive.receive() == "asked"  # the calls that hung have returned, and the files are read
            nursery.cancel_scope.cancel()
        assert receive.statistics().current_buffer_used == 0

    try:
        run_in_real_time(main)
    finally:
        sink.close(1.0)

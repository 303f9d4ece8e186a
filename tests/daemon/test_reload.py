"""SIGHUP adds, removes and changes guests; other guests are not affected."""

from __future__ import annotations

import gc
import os
import signal
import socket
import stat
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.control.controlled import client, post
from tests.serving import TIMEOUT, Serving, fake_guest, run_vhostcomm
from tests.trio_help import run, run_in_real_time
from vchannel import HostCommand, Request
from vhostcomm.config.load import load
from vhostcomm.config.models import Config
from vhostcomm.daemon.daemon import Daemon
from vhostcomm.daemon.reload import RETRY_MAX
from vhostcomm.log.logs import Log, start_log


def write(path: Path, folder: Path, guests: dict[str, str], extra: str = "") -> None:
    path.write_text(
        extra
        + "".join(
            f'[guests.{name}]\nsock = "{folder}/{name}"\nserial = "{serial}"\n' for name, serial in guests.items()
        )
    )


def test_reload_adds_removes_and_changes_guests(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"stays": "A" * 13, "changes": "B" * 13, "goes": "C" * 13})
    with (
        Serving("--config", path) as daemon,
        fake_guest(tmp_path / "stays") as stays,
        fake_guest(tmp_path / "changes") as changes,
        fake_guest(tmp_path / "goes") as goes,
    ):
        assert (stays.serial(), changes.serial(), goes.serial()) == ("A" * 13, "B" * 13, "C" * 13)
        write(path, tmp_path, {"stays": "A" * 13, "changes": "D" * 13, "comes": "E" * 13})
        daemon.send_signal(signal.SIGHUP)
        event = daemon.event("reloaded")
        assert (event["added"], event["removed"], event["changed"], event["guests"]) == (1, 1, 1, 3)
        assert goes.at_end()
        assert not (tmp_path / "goes").exists()
        # The connections of the others are the same as before.
        assert (stays.serial(), changes.serial()) == ("A" * 13, "D" * 13)
        with fake_guest(tmp_path / "comes") as comes:
            assert comes.serial() == "E" * 13


def test_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"nas": "A" * 13})
    with Serving("--config", path) as daemon, fake_guest(tmp_path / "nas") as guest:
        for bad, why in (("[host", "not TOML"), ('[host]\nserial = "x"\n', "13 letters and digits")):
            path.write_text(bad)
            daemon.send_signal(signal.SIGHUP)
            assert why in daemon.event("reload rejected, the old configuration stays")["why"]
            assert guest.serial() == "A" * 13
        path.unlink()
        daemon.send_signal(signal.SIGHUP)
        assert "No such file" in daemon.event("reload rejected, the old configuration stays")["why"]
        assert guest.serial() == "A" * 13


@pytest.mark.slow
def test_a_reload_that_cannot_be_served_changes_nothing_and_is_retried(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"nas": "A" * 13})
    with Serving("--config", path) as daemon, fake_guest(tmp_path / "nas") as guest:
        (tmp_path / "bad").write_text("a file")
        write(path, tmp_path, {"nas": "Z" * 13, "bad": "B" * 13, "good": "C" * 13})
        daemon.send_signal(signal.SIGHUP)
        rejected = daemon.event("reload rejected, the old configuration stays")
        assert f"{tmp_path}/bad: a file is in the place" in rejected["why"]
        assert rejected["next"] == "vhostcomm tries again"
        assert guest.serial() == "A" * 13
        assert not (tmp_path / "good").exists()
        # Once corrected, it is served without another reload.
        (tmp_path / "bad").unlink()
        assert daemon.event("reloaded")["added"] == 2
        assert guest.serial() == "Z" * 13
        with fake_guest(tmp_path / "bad") as late:
            assert late.serial() == "B" * 13


@pytest.mark.parametrize("valid", [True, False])
def test_another_reload_ends_the_retries(tmp_path: Path, valid: bool) -> None:
    """A retry would serve the older file, once that becomes possible."""
    file = tmp_path / "c.toml"

    def read() -> Config:
        return load(file, flags={"control": "none"}, environment={})

    async def check() -> None:
        daemon = Daemon(read(), log, read)
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            (tmp_path / "bad").write_text("a file")
            write(file, tmp_path, {"nas": "A" * 13, "bad": "B" * 13})
            assert "a file is in the place" in (await daemon.reload()).why_not
            write(file, tmp_path, {"nas": "A" * 13}, "" if valid else "mistake = 1\n")
            assert bool((await daemon.reload()).why_not) is not valid
            (tmp_path / "bad").unlink()
            await trio.sleep(2 * RETRY_MAX)
            assert list(daemon.guests) == ["nas"]
            nursery.cancel_scope.cancel()

    write(file, tmp_path, {"nas": "A" * 13})
    with logging_into(tmp_path / "log") as log:
        run(check)


@pytest.mark.parametrize("bad", ["emptied", "a pipe", "a device", "a directory", "a socket", "gigabytes"])
@pytest.mark.slow
def test_anything_but_a_valid_file_is_rejected_without_delay(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"nas": "A" * 13})
    with Serving("--config", path) as daemon, fake_guest(tmp_path / "nas") as guest:
        path.unlink()
        match bad:
            case "emptied":
                path.touch()
            case "a pipe":
                os.mkfifo(path)
            case "a device":
                path.symlink_to("/dev/zero")
            case "a directory":
                path.mkdir()
            case "a socket":
                with socket.socket(socket.AF_UNIX) as made:
                    made.bind(str(path))
            case _:
                with path.open("wb") as made_file:
                    made_file.truncate(8 << 30)
        daemon.send_signal(signal.SIGHUP)
        why = daemon.event("reload rejected, the old configuration stays")["why"]
        assert {"emptied": "no guest to serve", "gigabytes": "8589934592 bytes"}.get(bad, bad) in why
        assert guest.serial() == "A" * 13


def test_a_start_rejects_the_files_that_a_reload_rejects(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    os.mkfifo(path)
    assert "a pipe, but the configuration must be a regular file" in run_vhostcomm("serve", "--config", path).stderr
    path.unlink()
    path.touch()
    ended = run_vhostcomm("serve", "--config", path)
    assert (ended.returncode, "no guest to serve" in ended.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[serve]\nsocket_group = "nobody-has-this"\n', "there is no group 'nobody-has-this'"),
        ('[serve]\nwatch = ["/nowhere/at/all"]\n', "/nowhere/at/all: can't be watched"),
        ('[guests.b]\nsock = "{0}/b"\n', "c.toml: serve.record: "),
        ('[serve]\nweb = "0.0.0.0:8470"\n', "c.toml: serve.web is 0.0.0.0:8470: other machines"),
    ],
)
def test_settings_of_a_start_are_still_checked_by_a_reload(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "c.toml"
    guest = f'[guests.nas]\nsock = "{tmp_path}/nas"\n'
    path.write_text(f'[serve]\nrecord = "{tmp_path}/nas.jsonl"\n{guest}')
    with Serving("--config", path) as daemon:
        path.write_text(text.format(tmp_path) + guest)
        daemon.send_signal(signal.SIGHUP)
        assert why in daemon.event("reload rejected, the old configuration stays")["why"]


def test_a_rejected_reload_leaves_no_recordings(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    records = f'[serve]\nrecord = "{tmp_path}/{{guest}}.jsonl"\n'
    write(path, tmp_path, {"nas": "A" * 13}, records)
    with Serving("--config", path) as daemon:
        (tmp_path / "bad").write_text("a file")
        write(path, tmp_path, {"nas": "A" * 13, "good": "C" * 13, "bad": "B" * 13}, records)
        daemon.send_signal(signal.SIGHUP)
        daemon.event("reload rejected, the old configuration stays")
        assert {each.name for each in tmp_path.glob("*.jsonl")} == {"nas.jsonl"}


def test_changed_host_values_reach_every_guest(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"a": "A" * 13, "b": "B" * 13})
    with Serving("--config", path) as daemon, fake_guest(tmp_path / "a") as guest:
        assert guest.ask(HostCommand.HOST_SERIAL) == b"0" * 13 + b"\0"
        write(path, tmp_path, {"a": "A" * 13, "b": "B" * 13}, '[host]\nserial = "HOST567890123"\n')
        daemon.send_signal(signal.SIGHUP)
        assert daemon.event("reloaded")["changed"] == 2
        assert guest.ask(HostCommand.HOST_SERIAL) == b"HOST567890123\0"


def test_settings_of_a_start_need_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"nas": "A" * 13})
    with Serving("--config", path) as daemon:
        write(path, tmp_path, {"nas": "A" * 13, "new": "B" * 13}, '[serve]\nsocket_mode = "0666"\n')
        for _ in range(2):
            daemon.send_signal(signal.SIGHUP)
            assert (
                daemon.event("changed settings need a restart; guests and identities are active now")["keys"]
                == "socket_mode"
            )
            daemon.event("reloaded")
        assert stat.S_IMODE((tmp_path / "new").lstat().st_mode) == 0o600


def test_a_stop_does_not_wait_for_a_reload(tmp_path: Path) -> None:
    """The removal of a guest that never reads takes a minute; the stop doesn't wait for it."""
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"stuck": "A" * 13, "nas": "B" * 13}, "[serve]\ndrain_timeout = 60\nframe_rate = 0\n")
    with Serving("--config", path) as daemon, fake_guest(tmp_path / "stuck") as stuck:
        stuck.sock.setblocking(False)
        with suppress(BlockingIOError):
            while stuck.sock.send(Request.of(HostCommand.GUEST_SERIAL).raw):
                pass
        write(path, tmp_path, {"nas": "B" * 13}, "[serve]\ndrain_timeout = 60\nframe_rate = 0\n")
        daemon.send_signal(signal.SIGHUP)
        daemon.event("reloading")
        for _ in range(2):
            daemon.send_signal(signal.SIGTERM)
            daemon.event("stopping" if _ == 0 else "not waiting any longer")
        assert daemon.process.wait(TIMEOUT) == 0


@pytest.mark.slow
def test_without_a_file_there_is_nothing_to_reload(tmp_path: Path) -> None:
    with (
        Serving("--sock", tmp_path / "nas", "--control", tmp_path / "control") as daemon,
        client(tmp_path / "control") as http,
        fake_guest(tmp_path / "nas") as guest,
    ):
        daemon.send_signal(signal.SIGHUP)
        daemon.event("nothing to reload: there is no --config file")
        assert guest.serial()
        status, refused = post(http, "/reload")
        assert (status, refused["error"]["why"]) == (409, "the daemon was started without --config")
        assert refused["error"]["remedy"] == "restart it with --config FILE"
        # Nothing is wrong with what is served.
        assert http.get("/healthz").json()["not_reloaded"] is None


@contextmanager
def logging_into(file: Path) -> Iterator[Log]:
    with file.open("w") as stream:
        log, sink = start_log("info", "json", stream)
        try:
            yield log
        finally:
            sink.close(TIMEOUT)


def test_ended_guests_are_freed_without_a_collection(tmp_path: Path) -> None:
    """The daemon hides the objects of the start and of a reload from the garbage collector."""
    file, folder = tmp_path / "c.toml", tmp_path / "socks"
    folder.mkdir()

    def write(*names: str) -> None:
        """Each has a QMP socket, whose task refers to the guest."""
        lines = [f'[guests.{name}]\nsock = "{folder}/{name}"\nqmp = "{folder}/{name}.qmp"\n' for name in names]
        file.write_text("".join(lines))

    async def check() -> None:
        daemon = Daemon(read(), log, read)
        in_trio = trio.lowlevel.current_trio_token().run_sync_soon
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            await trio.testing.wait_all_tasks_blocked()
            for names in ("a", "b", "stays"), ("c", "d", "stays"):
                write(*names)
                assert not (await daemon.reload()).why_not
                await trio.testing.wait_all_tasks_blocked()
                freed = [trio.Event(), trio.Event()]
                for event, name in zip(freed, names[:2], strict=True):
                    # A thread of the reload may be the last to refer to a guest, and may not set the event itself.
                    weakref.finalize(daemon.guests[name], in_trio, event.set)
                write("stays")
                assert not (await daemon.reload()).why_not
                for event in freed:
                    await event.wait()
            nursery.cancel_scope.cancel()

    def read() -> Config:
        return load(file, flags={"control": "none"}, environment={})

    write("a", "b", "stays")
    threshold = gc.get_threshold()
    gc.set_threshold(0)  # no collection by chance
    with logging_into(tmp_path / "log") as log:
        try:
            run_in_real_time(check)
        finally:
            gc.unfreeze()
            gc.set_threshold(*threshold)


def test_file_system_that_hangs_is_given_up(tmp_path: Path) -> None:
    """A read that never ends replaces the file system here."""
    hanging = threading.Event()

    def read() -> Config:
        hanging.wait()
        raise AssertionError

    async def check() -> None:
        config = load(socks=[str(tmp_path / "nas")], flags={"control": "none"}, environment={})
        daemon = Daemon(config, log, read)
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            assert (await daemon.reload()).why_not
            assert "could not be read within 30 s" in daemon.not_reloaded
            assert list(daemon.guests) == ["nas"]
            assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0, "other tasks need its threads"
            # A reload that still hangs doesn't delay the stop either.
            nursery.start_soon(daemon.reload)
            await trio.testing.wait_all_tasks_blocked()
            await daemon.stop()
            nursery.cancel_scope.cancel()

    with logging_into(tmp_path / "log") as log:
        try:
            run(check, thread_hangs=True)
        finally:
            hanging.set()
    assert [each.name for each in tmp_path.iterdir()] == ["log"]

"""A thaw that is owed to a guest whose address changes, that is no longer served, or whose daemon stops."""

from __future__ import annotations

import signal
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog
import trio

from tests.control.controlled import INFORMATION, answering, client, post
from tests.qemu_host.running import QemuHost, error
from tests.serving import TIMEOUT, FakeGuest, Serving, fake_guest, until
from tests.trio_help import run
from vchannel import Command, GuestCommand, Request, Response
from vhostcomm.channel.asker import Asker
from vhostcomm.channel.calls import CallError, Outcome
from vhostcomm.channel.guest import Guest
from vhostcomm.config.address import Listen
from vhostcomm.config.identity import GuestIdentity, HostIdentity
from vhostcomm.daemon.freezer import THAW_INTERVAL, THAW_TIMEOUT, Freezer
from vhostcomm.guest.events import Gone

INFO, FREEZE, THAW = 10, 14, 15


@pytest.mark.slow
def test_thaw_is_owed_at_the_new_address(tmp_path: Path) -> None:
    config, old, new = (tmp_path / name for name in ("vhostcomm.toml", "old", "new"))
    config.write_text(f'[guests.nas]\nsock = "{old}"\n')
    with Serving("--config", config, "--control", tmp_path / "control") as daemon, client(tmp_path / "control") as http:
        with answering(old, {FREEZE: b""}):
            assert post(http, "/guests/nas/freeze", timeout=600)[0] == 200
        daemon.event("guest gone")
        config.write_text(f'[guests.nas]\nsock = "{new}"\n')
        assert post(http, "/reload")[0] == 200
        assert not (tmp_path / ".old.frozen").exists()
        assert (tmp_path / ".new.frozen").exists()
        assert http.get("/guests/nas").json()["thaw_owed"]
        with answering(new, {THAW: b"", INFO: INFORMATION}) as guest:
            assert daemon.event("thawed")["why"] == "its address changed"
            until(lambda: guest.asked == [THAW])
        assert http.get("/guests/nas").json()["thaw_owed"] is None
        assert not (tmp_path / ".new.frozen").exists()


@pytest.mark.slow
def test_guest_removed_while_frozen_is_thawed_when_served_again(tmp_path: Path) -> None:
    """The record of its freeze stays on disk."""
    config, sock = tmp_path / "vhostcomm.toml", tmp_path / "nas"
    two = f'[guests.two]\nsock = "{tmp_path / "two"}"\n'
    config.write_text(f'[guests.nas]\nsock = "{sock}"\n{two}')
    with Serving("--config", config, "--control", tmp_path / "control") as daemon, client(tmp_path / "control") as http:
        with answering(sock, {FREEZE: b""}):
            assert post(http, "/guests/nas/freeze", timeout=600)[0] == 200
        daemon.event("guest gone")
        config.write_text(two)
        assert post(http, "/reload") == (200, {"reloaded": True, "guests": ["two"], "needs_restart": []})
        assert daemon.event("guest not thawed")["why"] == "QEMU is not connected"
        config.write_text(f'{two}[guests.other]\nsock = "{sock}"\n')
        assert post(http, "/reload") == (200, {"reloaded": True, "guests": ["two", "other"], "needs_restart": []})
        with answering(sock, {THAW: b""}):
            assert daemon.event("thawed", guest="other")


def test_frozen_guest_whose_socket_leaves_a_watched_folder_is_thawed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "nas"))
        server.listen(1)
        server.settimeout(TIMEOUT)
        with (
            Serving("--watch", folder, "--control", tmp_path / "control") as daemon,
            client(tmp_path / "control") as http,
            ThreadPoolExecutor(1) as pool,
        ):
            sock, _ = server.accept()
            with sock:
                guest = FakeGuest(sock)
                guest.serial()
                freezing = pool.submit(post, http, "/guests/nas/freeze", timeout=600)
                guest.sock.sendall(guest.next_request().reply(b"").raw)
                assert freezing.result()[0] == 200
                (folder / "nas").unlink()
                asked = guest.next_request()
                assert asked.command == THAW
                guest.sock.sendall(asked.reply(b"").raw)
                assert daemon.event("thawed")["why"] == "its socket is gone from the directory"
                assert guest.at_end()


def owing(test: Callable[[Freezer, Guest, list[Command]], Awaitable[None]], answers_from: int = 1) -> None:
    """Run a freezer without a daemon. Its guest answers thaws from the one with the number `answers_from` on."""

    async def main() -> None:
        asked: list[Command] = []
        guest = Guest("nas", Listen(Path("/nowhere/nas")), HostIdentity(), GuestIdentity(), structlog.get_logger())

        class Answering(Asker):
            async def ask(
                self, command: Command, data: bytes = b"", *, timeout: float, by: str = "",
                sending: Callable[[], None] | None = None,
            ) -> Response:  # fmt: skip
                assert data == b""
                if by == "late":
                    await freezer.close([], "the daemon stops")
                assert sending
                sending()
                asked.append(command)
                if by == "slow":
                    await trio.sleep(1)
                if command is GuestCommand.FS_UNFREEZE and asked.count(command) < answers_from:
                    await trio.sleep(timeout)
                    raise CallError(command, Outcome.TIMED_OUT, "no answer")
                return Request.of(command).reply(b"")

        freezer = Freezer({"nas": Answering(guest)}.get, guest.log)
        async with trio.open_nursery() as nursery:
            await nursery.start(freezer.run)
            guest.connected()
            await test(freezer, guest, asked)
            nursery.cancel_scope.cancel()

    run(main)


def tasks_below(task: trio.lowlevel.Task) -> int:
    """The number of tasks below a task, at any depth."""
    return sum(1 + tasks_below(child) for nursery in task.child_nurseries for child in nursery.child_tasks)


@pytest.mark.parametrize("answers_from", [1, 4])
def test_nothing_waits_for_a_guest_that_is_gone(answers_from: int) -> None:
    """Only a connected guest has a task that thaws it; the thaw is repeated until one is answered."""

    async def body(freezer: Freezer, guest: Guest, asked: list[Command]) -> None:
        tasks = tasks_below(trio.lowlevel.current_task())
        await freezer.freeze(guest, 600, timeout=5, by="test")
        assert tasks_below(trio.lowlevel.current_task()) == tasks + 1
        guest.gone(Gone("QEMU closed the connection"))
        await trio.testing.wait_all_tasks_blocked()
        assert tasks_below(trio.lowlevel.current_task()) == tasks
        guest.connected()
        freezer.connected(guest)
        await trio.sleep(60)
        assert asked == [GuestCommand.FS_FREEZE, *[GuestCommand.FS_UNFREEZE] * answers_from]
        assert guest.debt is None
        assert tasks_below(trio.lowlevel.current_task()) == tasks

    owing(body, answers_from)


def test_intervals_between_thaws_are_short_again_after_a_reset() -> None:
    """Five minutes without an answer, then a reset: the next boot leaves one thaw unanswered, and gets the next 2 s later."""

    async def body(freezer: Freezer, guest: Guest, asked: list[Command]) -> None:
        await freezer.freeze(guest, 1, timeout=1, by="test")
        await trio.sleep(300)
        assert asked.count(GuestCommand.FS_UNFREEZE) == 9
        guest.machine_reset()
        await trio.sleep(THAW_TIMEOUT + THAW_INTERVAL + 1)
        assert asked.count(GuestCommand.FS_UNFREEZE) == 11
        assert guest.debt is None

    owing(body, answers_from=11)


def test_a_longer_freeze_replaces_a_shorter_one() -> None:
    """The first freeze ends while the second is on its way: the guest stays frozen."""

    async def body(freezer: Freezer, guest: Guest, asked: list[Command]) -> None:
        await freezer.freeze(guest, 0.3, timeout=5, by="test")
        await freezer.freeze(guest, 600, timeout=5, by="slow")
        assert asked == [GuestCommand.FS_FREEZE] * 2
        assert guest.debt is not None
        await trio.sleep(590)
        assert asked == [GuestCommand.FS_FREEZE] * 2
        await trio.sleep(10)
        assert asked[2:] == [GuestCommand.FS_UNFREEZE]
        assert guest.debt is None

    owing(body)


def test_freeze_is_not_sent_once_the_daemon_stops() -> None:
    """The stop begins while the guest is asked whether it is up."""

    async def body(freezer: Freezer, guest: Guest, asked: list[Command]) -> None:
        with pytest.raises(CallError, match="the daemon stops") as caught:
            await freezer.freeze(guest, 600, timeout=5, by="late")
        assert caught.value.outcome is Outcome.STOPPING
        assert (asked, guest.debt) == ([], None)

    owing(body)


@pytest.mark.parametrize(("path", "says"), [
    ("/read?command=14", "Failed sending command 14 to guest"),
    ("/write?command=14", "Failed sending command 14 to guest"),
    ("/read?command=15", None),
    ("/write?command=15", None),
    ("/read?command=6&timeout=20", None),
    ("/write?command=6", None),
])  # fmt: skip
@pytest.mark.slow
def test_api_of_qemu_host_has_no_internal_error_during_a_stop(tmp_path: Path, path: str, says: str | None) -> None:
    """A freeze fails with a message of the API. No request fails with an internal error, and the stop ends."""
    with QemuHost(tmp_path) as host, fake_guest(host.sock) as guest, ThreadPoolExecutor(1) as pool:
        guest.serial()
        freezing = pool.submit(host.get, "/read?command=14")
        guest.sock.sendall(guest.next_request().reply(b"done\0").raw)
        assert freezing.result()[0] == 200
        host.process.send_signal(signal.SIGTERM)
        assert guest.next_request().command == THAW  # the thaw of the stop, left unanswered
        if says:
            assert host.get(path) == error(says)
        else:
            asked = pool.submit(host.get, path)
            assert guest.next_request().command == THAW  # a frozen guest is thawed before its power-off
            guest.sock.close()
            assert asked.exception() or "Internal error" not in asked.result()[1]

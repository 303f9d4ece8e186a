"""A file system that hangs holds up the guests on it, and no others."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.control.controlled import answering, controlled, post
from tests.forked import Forked
from tests.hanging import Hanging
from tests.serving import ENVIRONMENT, TIMEOUT, FakeGuest, Serving, end, fake_guest
from tests.trio_help import run_in_real_time
from vchannel import GuestCommand
from vhostcomm.linux.threads import made_in_thread, unless_it_hangs

FINE = "A" * 13
FREEZE, THAW = GuestCommand.FS_FREEZE, GuestCommand.FS_UNFREEZE


def guests(folder: Path, more: str) -> str:
    return f'[guests.nas]\nsock = "{folder}/nas"\nserial = "{FINE}"\n{more}'


def answered(nas: FakeGuest) -> bool:
    return nas.serial() == FINE


@pytest.mark.parametrize(
    "more",
    ['[guests.bad]\nsock = "connect:{place}/qemu"\n', 'qmp = "{place}/qmp"\n'],
    ids=["QEMU's socket", "QMP's socket"],
)
def test_a_hanging_socket_of_qemu_delays_no_guest(tmp_path: Path, more: str) -> None:
    place, config = tmp_path / "place", tmp_path / "c.toml"
    place.mkdir()
    config.write_text(guests(tmp_path, more.format(place=place)))
    with Serving("--config", config) as daemon, fake_guest(tmp_path / "nas") as nas, Hanging(place) as hanging:
        hanging.asked()
        assert answered(nas)
        assert daemon.stop() == 0


@pytest.mark.slow
def test_a_freeze_whose_record_hangs_is_sent(tmp_path: Path) -> None:
    """The freeze is sent after half of its timeout. Other guests are answered meanwhile."""
    state = tmp_path / "state"
    state.mkdir()
    with (
        controlled(tmp_path, "--sock", tmp_path / "other", env=ENVIRONMENT | {"STATE_DIRECTORY": str(state)}) as found,
        answering(tmp_path / "nas", {FREEZE: b"", THAW: b""}) as nas,
        fake_guest(tmp_path / "other") as other,
        ThreadPoolExecutor(1) as pool,
    ):
        daemon, http = found
        with Hanging(state) as hanging:
            asked = pool.submit(post, http, "/guests/nas/freeze", timeout=4)
            hanging.asked()
            assert other.serial()
            assert asked.result()[0] == 200
            line = daemon.event("record of a freeze not kept")
            assert (line["guest"], line["why"]) == ("nas", "its file system has hung for 2 s")
            assert daemon.event("thawed")["why"] == "its time is over"
            assert nas.asked == [FREEZE, THAW]
        assert daemon.stop() == 0
        assert list(state.iterdir()) == []


@pytest.mark.slow
def test_a_guest_whose_socket_hangs_delays_no_other(tmp_path: Path) -> None:
    """The socket's file is deleted while its file system hangs. Then the guest is removed from the configuration."""
    place, config = tmp_path / "place", tmp_path / "c.toml"
    place.mkdir()
    config.write_text(guests(tmp_path, f'[guests.bad]\nsock = "{place}/bad"\n'))
    below = os.open(place, os.O_RDONLY)
    try:
        with Serving("--config", config) as daemon, fake_guest(tmp_path / "nas") as nas, Hanging(place) as hanging:
            os.unlink("bad", dir_fd=below)
            hanging.asked()
            assert answered(nas)
            config.write_text(guests(tmp_path, ""))
            daemon.send_signal(signal.SIGHUP)
            assert daemon.event("reloaded")["removed"] == 1
            assert answered(nas)
            config.write_text(guests(tmp_path, f'[guests.other]\nsock = "{tmp_path}/other"\n'))
            daemon.send_signal(signal.SIGHUP)
            assert daemon.event("reloaded")["added"] == 1
            with fake_guest(tmp_path / "other") as other:
                assert other.serial()
            assert daemon.stop() == 0
    finally:
        os.close(below)


def test_a_new_guest_whose_folder_hangs_delays_no_other(tmp_path: Path) -> None:
    """The daemon looks for a record of the new guest's freeze before it makes the socket."""
    place, config = tmp_path / "place", tmp_path / "c.toml"
    place.mkdir()
    config.write_text(guests(tmp_path, ""))
    with Serving("--config", config) as daemon, fake_guest(tmp_path / "nas") as nas, Hanging(place) as hanging:
        config.write_text(guests(tmp_path, f'[guests.bad]\nsock = "{place}/bad"\n'))
        daemon.send_signal(signal.SIGHUP)
        hanging.asked()
        assert answered(nas)
        assert daemon.stop() == 0


def test_a_recording_that_hangs_delays_neither_guests_nor_the_stop(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(place / "run")}
    with (
        controlled(tmp_path, env=environment) as (daemon, http),
        fake_guest(tmp_path / "nas") as nas,
        Hanging(place) as hanging,
        ThreadPoolExecutor(1) as pool,
    ):
        begun = pool.submit(post, http, "/guests/nas/record", on=True)
        hanging.asked()
        assert nas.serial()
        assert daemon.stop() == 0
        assert begun.exception(TIMEOUT)


@pytest.mark.parametrize("flag", ["--boot", "--system"])
def test_a_launcher_whose_disks_hang_can_be_stopped(tmp_path: Path, flag: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    log = tmp_path / "log"
    with Hanging(place) as hanging, log.open("wb") as written:
        words = ["run", flag, str(place / "disk.img"), "--log-format", "json"]
        process = Forked(words, stdout=written, stderr=written, env=ENVIRONMENT)
        try:
            hanging.asked()
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
        finally:
            end(process)
    assert json.loads(log.read_text())["event"] == "stopped before QEMU was started"


def test_one_thread_makes_all_short_calls_that_wait(tmp_path: Path) -> None:
    """The removal of a thousand sockets must not need a thousand threads."""
    made: list[int] = []
    go = threading.Event()

    async def main() -> None:
        begun = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def first() -> None:
            token.run_sync_soon(begun.set)
            go.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(unless_it_hangs, tmp_path, first, TIMEOUT)
            await begun.wait()
            for number in range(100):
                nursery.start_soon(unless_it_hangs, tmp_path, partial(made.append, number), TIMEOUT)
            await trio.testing.wait_all_tasks_blocked()
            assert not made, "another thread makes them"
            go.set()

    try:
        run_in_real_time(main)
    finally:
        go.set()
    assert sorted(made) == list(range(100))


def test_a_short_call_is_given_up_a_while_after_the_last_one_returned(tmp_path: Path) -> None:
    """The time that a call waits behind others doesn't count, as long as those return."""
    clock = trio.testing.MockClock()
    go, never = threading.Event(), threading.Event()
    given_up: list[float] = []

    async def main() -> None:
        begun = trio.Event()
        token = trio.lowlevel.current_trio_token()
        start = trio.current_time()

        def second() -> None:
            token.run_sync_soon(begun.set)
            never.wait()

        async def wait_for_second() -> None:
            await unless_it_hangs(tmp_path, second, 3.0)
            given_up.append(trio.current_time() - start)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(unless_it_hangs, tmp_path, partial(_block, go), 3.0)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(wait_for_second)
            await trio.testing.wait_all_tasks_blocked()
            clock.jump(2.0)
            go.set()
            await begun.wait()
            for _ in range(8):
                clock.jump(0.5)
                await trio.testing.wait_all_tasks_blocked()

    try:
        trio.run(main, clock=clock)
    finally:
        go.set()
        never.set()
    assert given_up == [5.0]


def test_a_short_call_that_fails_or_hangs_affects_no_other_place(tmp_path: Path) -> None:
    go = threading.Event()
    done: list[bool] = []

    async def main() -> None:
        with pytest.raises(NotADirectoryError):
            await unless_it_hangs(tmp_path, partial(os.rmdir, __file__), TIMEOUT)
        await unless_it_hangs(tmp_path, lambda: _block(go), 0.01)
        await unless_it_hangs(tmp_path / "other", partial(done.append, True), TIMEOUT)

    try:
        run_in_real_time(main)
    finally:
        go.set()
    assert done


def test_the_result_of_a_cancelled_call_is_discarded_once(tmp_path: Path) -> None:
    """The result may be made after the call was cancelled, or just before."""
    discarded: queue.SimpleQueue[str] = queue.SimpleQueue()
    go = threading.Event()

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        scope = trio.CancelScope()

        def late() -> str:
            token.run_sync_soon(scope.cancel)
            go.wait()
            return "late"

        with scope:
            await made_in_thread(tmp_path, late, discarded.put)
        assert scope.cancelled_caught
        assert discarded.empty()
        go.set()
        assert await trio.to_thread.run_sync(partial(discarded.get, timeout=TIMEOUT)) == "late"

        scope = trio.CancelScope()

        def early() -> str:
            token.run_sync_soon(scope.cancel)
            return "early"

        with scope:
            await made_in_thread(tmp_path, early, discarded.put)
        assert await trio.to_thread.run_sync(partial(discarded.get, timeout=TIMEOUT)) == "early"
        assert discarded.empty()
        assert await made_in_thread(tmp_path, lambda: "kept", discarded.put) == "kept"

    try:
        run_in_real_time(main)
    finally:
        go.set()


def _block(until: threading.Event) -> None:
    until.wait()

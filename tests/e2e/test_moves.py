"""Guests that are up in a new QEMU, or that boot again in an old one: the daemon knows their real state."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.cluster.etcd import Etcd, running
from tests.control.controlled import client, post
from tests.e2e.launched import BOOT_TIMEOUT, Images
from tests.e2e.moved import machine, restore
from tests.serving import ENVIRONMENT, Serving, is_listening, run_vhostcomm, started, until
from vchannel import GuestCommand

DEBUG = "--log-level", "debug"
IP, INFO, THAW = 2, 10, 15
WITH_ETCD = pytest.mark.needs("etcd")


@contextmanager
def served(
    folder: Path, *names: str, control: str = "control", expect_exit: int | None = 0, words: tuple[str, ...] = ()
) -> Iterator[tuple[Serving, httpx.Client]]:
    """A daemon that serves guests with these names, each at the socket of its name."""
    socks = [word for name in names for word in ("--sock", f"{name}={folder / name}")]
    environment = ENVIRONMENT | {"STATE_DIRECTORY": str(folder)}
    with (
        Serving(*socks, *words, "--control", folder / control, expect_exit=expect_exit, env=environment) as daemon,
        client(folder / control) as http,
    ):
        daemon.timeout = BOOT_TIMEOUT
        http.timeout = httpx.Timeout(BOOT_TIMEOUT)
        yield daemon, http


def state(http: httpx.Client, name: str = "nas") -> str:
    return str(http.get(f"/guests/{name}").json()["state"])


def unanswered(http: httpx.Client, name: str) -> float:
    """Return the number of harmless questions without an answer; the daemon asks another if it is due."""
    metrics = http.get("/metrics").text
    line = f'vhostcomm_guest_calls_total{{command="get_information",guest="{name}",outcome="timed out"}} '
    return float(metrics.partition(line)[2].partition("\n")[0] or 0)


def sends(daemon: Serving, command: str) -> None:
    """Wait until a daemon with `DEBUG` has logged that it sends the command."""
    while f"asks {GuestCommand[command]:d} {command} " not in daemon.event("frame")["what"]:
        pass


def powers_off(http: httpx.Client, name: str = "nas") -> None:
    status, done = post(http, f"/guests/{name}/shutdown", wait=80)
    assert (status, done.get("gone")) == (200, True), done


def member_of(etcd: Etcd | None, host: str) -> tuple[str, ...]:
    """Return a daemon's flags for the cluster, if there is one."""
    return ("--cluster", etcd.address, "--cluster-host", host) if etcd else ()


def stopped_by_a_verb(*hosts: Path) -> None:
    """Check that a verb that asks all hosts stops the guest on its host, even while the migration's source is connected."""
    words = [word for host in hosts for word in ("--control", host / "control")]
    gone = run_vhostcomm("shutdown", "nas", "--wait", "80", *words, timeout=BOOT_TIMEOUT)
    assert gone.stdout.startswith("nas: gone after "), gone


def falls_silent(http: httpx.Client) -> None:
    """Leave a question unanswered on a migration's source, so that it is silent there.

    While both hosts call the guest ready, a verb gives it 2 s to answer on one of them. A busy emulator takes longer.
    """
    assert post(http, "/guests/nas/call", command=INFO, timeout=3)[0] in {409, 504}
    assert state(http) == "silent"


def test_a_frozen_guest_that_is_saved_and_restored(tmp_path: Path, images: Images) -> None:
    """The frozen guest is in a new QEMU and asks nothing. The daemon finds it up and thaws it. Then the guest migrates."""
    saved, incoming, other = tmp_path / "saved", tmp_path / "incoming", tmp_path / "other"
    with served(tmp_path, "nas") as (daemon, http):
        with machine(tmp_path, images, tmp_path / "nas") as before:
            daemon.event("guest ready")
            before.console.says("vchannel: ready")
            assert post(http, "/guests/nas/freeze", timeout=600)[0] == 200
            before.monitor.save(saved)
            before.quit()
        daemon.event("guest gone")
        with machine(tmp_path, images, tmp_path / "nas", "two", "-incoming", f"unix:{incoming}") as after:
            restore(saved, incoming)
            assert daemon.event("thawed")["why"] == "its connection ended"
            assert http.get("/guests/nas").json()["thaw_owed"] is None
            assert state(http) == "ready"
            after.console.says("vchannel: request 15")
            assert post(http, "/guests/nas/freeze", timeout=600)[0] == 200
            # The daemon rejects the destination's connection until the source has ended.
            with machine(tmp_path, images, tmp_path / "nas", "three", "-incoming", f"unix:{other}") as moved:
                after.monitor.save_to(f"unix:{other}")
                after.quit()
                assert daemon.event("thawed")["why"] == "its connection ended"
                powers_off(http)
                moved.ends()
                assert "vchannel: request 15" in moved.console.text


@pytest.mark.parametrize("how", ["within a daemon", "between hosts", pytest.param("with etcd", marks=WITH_ETCD)])
def test_a_live_migration(tmp_path: Path, images: Images, how: str) -> None:
    """Migrate between two daemons that represent hosts, and within one daemon.

    The destination is probed before the switch; its late answers count.
    """
    hosts = 1 if how == "within a daemon" else 2
    name, there = ("moved", tmp_path) if hosts == 1 else ("nas", tmp_path / "two")
    there.mkdir(exist_ok=True)
    with (
        running(tmp_path, 1) if how == "with etcd" else nullcontext() as etcd,
        served(tmp_path, *(("nas", "moved") if hosts == 1 else ("nas",)), words=member_of(etcd, "host1")) as first,
        served(there, "nas", words=member_of(etcd, "host2")) if hosts == 2 else nullcontext(first) as second,
        machine(tmp_path, images, tmp_path / "nas") as source,
    ):
        (daemon, http), (other, moved) = first, second
        daemon.event("guest ready", guest="nas")
        source.console.says("vchannel: ready")
        assert post(http, "/guests/nas/freeze", timeout=600)[0] == 200
        incoming = tmp_path / "incoming"
        with machine(tmp_path, images, there / name, "two", "-incoming", f"unix:{incoming}") as target:
            other.event("guest connected", guest=name)
            until(lambda: unanswered(moved, name) >= 3, "three probes before the switch", BOOT_TIMEOUT)
            assert name in moved.get("/healthz").json()["unhealthy"]
            assert state(moved, name) == "connected"
            source.monitor.save_to(f"unix:{incoming}")
            until(lambda: state(moved, name) == "ready", "the guest's first sign of life", BOOT_TIMEOUT)
            if etcd:
                other.event("guest owed a thaw")
                assert moved.get("/guests/nas").json()["thaw_owed"]["by"] == "a client of host1"
            else:
                # The destination does not know that its guest is frozen, but accepts a thaw.
                assert post(moved, f"/guests/{name}/thaw", timeout=60)[0] == 200
            # The source's QEMU still reads frames, which no guest will receive.
            assert post(http, "/guests/nas/freeze", timeout=5)[0] in {409, 504}
            if hosts == 2:
                falls_silent(http)
                stopped_by_a_verb(tmp_path, there)
                source.quit()
            else:
                source.quit()
                powers_off(moved, name)
            target.ends()
            # With etcd, that is the thaw before the power-off.
            assert "vchannel: request 15" in target.console.text
            if etcd:
                daemon.event("thawed", by="host2")


def test_a_migration_between_hosts_under_load(tmp_path: Path, images: Images) -> None:
    """The guest asks without a pause. The new host answers, and a third command line stops the guest there."""
    one, two, incoming = tmp_path / "one", tmp_path / "two", tmp_path / "incoming"
    one.mkdir()
    two.mkdir()
    with (
        served(one, "nas") as (here, http),
        served(two, "nas") as (there, _),
        machine(tmp_path, images, one / "nas", loop=1) as source,
        machine(tmp_path, images, two / "nas", "two", "-incoming", f"unix:{incoming}", loop=1) as target,
    ):
        here.event("guest ready")
        there.event("guest connected")
        source.console.says(" ok")
        source.monitor.save_to(f"unix:{incoming}")
        there.event("guest ready")
        for _ in range(3):
            target.console.says(" ok")
        falls_silent(http)
        stopped_by_a_verb(one, two)
        there.event("stop requested")
        target.ends()
        source.quit()
    assert not [line for line in here.log if line["event"] == "stop requested"]


@pytest.mark.needs("qemu-img", "socat")
def test_loadvm_and_chardev_change(tmp_path: Path, images: Images) -> None:
    """The channel does not show that a guest returned to an earlier state, in the same or a new QEMU, or to another socket."""
    disk, proxy, nas, other = (tmp_path / each for each in ("data.qcow2", "proxy", "nas", "other"))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"], check=True)
    with (
        served(tmp_path, "nas", "other", words=DEBUG) as (daemon, http),
        started(["socat", f"UNIX-LISTEN:{proxy},fork", f"UNIX-CONNECT:{other}"]),
    ):
        until(lambda: is_listening(proxy), "the proxy")
        with machine(tmp_path, images.with_only(disk), nas, acpi="wait") as qemu, ThreadPoolExecutor(1) as pool:
            qemu.console.says("acpi: waiting for")  # the agent starts when the power button is pressed
            qemu.monitor.human("savevm early")
            qemu.monitor.do("system_powerdown")
            qemu.console.says("vchannel: ready")
            qemu.monitor.human("savevm up")
            assert post(http, "/guests/nas/call", command=IP, timeout=60)[0] == 200
            qemu.monitor.human("loadvm up")
            assert post(http, "/guests/nas/call", command=IP, timeout=60)[0] == 200
            # The guest is idle behind a proxy, and is found up.
            qemu.monitor.connect_chardev_to(proxy)
            daemon.event("guest connected", guest="other")
            until(lambda: state(http) == "absent", "the end of the first connection", BOOT_TIMEOUT)
            assert post(http, "/guests/nas/shutdown")[0] == 409
            assert post(http, "/guests/other/call", command=IP, timeout=60)[0] == 200
            # Without its agent, a stop is rejected, and not kept for the agent.
            qemu.monitor.connect_chardev_to(nas)
            daemon.event("guest connected", guest="nas")
            qemu.monitor.human("loadvm early")
            assert post(http, "/guests/nas/shutdown", timeout=1)[0] == 409
            qemu.monitor.do("system_powerdown")
            qemu.console.says("vchannel: ready")
            # A stop that may wait succeeds when the agent is up.
            qemu.monitor.connect_chardev_to(other)
            daemon.event("guest connected", guest="other")
            qemu.monitor.human("loadvm early")
            stopping = pool.submit(powers_off, http, "other")
            sends(daemon, "GET_INFORMATION")
            qemu.monitor.do("system_powerdown")
            stopping.result()
            qemu.ends()
            assert qemu.console.text.count("vchannel: request 6") == 1
        with machine(tmp_path, images.with_only(disk), nas, "two", "-loadvm", "up") as qemu:
            assert post(http, "/guests/nas/call", command=INFO, timeout=60)[0] == 200
            assert post(http, "/guests/nas/freeze", timeout=600)[0] == 200
            powers_off(http)
            qemu.ends()
            assert "vchannel: request 15" in qemu.console.text


def test_a_reset_while_a_shutdown_waits(tmp_path: Path, images: Images) -> None:
    """QEMU keeps the power-off command, or loses it in the reset. In both cases, the guest powers off."""
    with (
        served(tmp_path, "nas") as (daemon, http),
        machine(tmp_path, images, tmp_path / "nas") as qemu,
        ThreadPoolExecutor(1) as pool,
    ):
        qemu.console.says("vchannel: ready")
        assert post(http, "/guests/nas/call", command=INFO, timeout=60)[0] == 200
        qemu.monitor.do("stop")
        stopping = pool.submit(powers_off, http)
        daemon.event("stop requested")
        qemu.monitor.do("system_reset")
        qemu.monitor.do("cont")
        stopping.result()
        qemu.ends()


def test_a_reset_with_calls_outstanding(tmp_path: Path, images: Images) -> None:
    """QEMU may keep a freeze for the next boot, so the next boot is thawed."""
    with (
        served(tmp_path, "nas") as (daemon, http),
        machine(tmp_path, images, tmp_path / "nas") as qemu,
        ThreadPoolExecutor(4) as pool,
    ):
        qemu.console.says("vchannel: ready")
        assert post(http, "/guests/nas/call", command=INFO, timeout=60)[0] == 200
        qemu.monitor.do("stop")
        asked = [pool.submit(post, http, "/guests/nas/call", command=each, timeout=1) for each in (IP, INFO, THAW)]
        qemu.monitor.do("system_reset")
        # The agent of the next boot is not up yet.
        asked.append(pool.submit(post, http, "/guests/nas/freeze", timeout=1))
        daemon.event("frozen")
        assert [each.result()[0] for each in asked] == [504] * 4, [each.result() for each in asked]
        qemu.monitor.do("cont")
        daemon.event("thawed")
        assert http.get("/guests/nas").json()["thaw_owed"] is None
        powers_off(http)
        qemu.ends()


def test_a_daemon_that_is_killed_at_each_moment(tmp_path: Path, images: Images) -> None:
    """The next daemon finds the guest up, thaws it if a thaw is owed, and shuts it down."""
    killed = partial(served, tmp_path, "nas", expect_exit=-signal.SIGKILL, words=DEBUG)
    with machine(tmp_path, images, tmp_path / "nas") as qemu, ThreadPoolExecutor(1) as pool:

        def kill_while(path: str, sent: str, daemon: Serving, http: httpx.Client, **body: object) -> None:
            """Kill the daemon while the stopped machine has that request."""
            assert post(http, "/guests/nas/call", command=INFO, timeout=60)[0] == 200
            qemu.monitor.do("stop")
            answer = pool.submit(http.post, f"/guests/nas/{path}", json={"timeout": 600, **body})
            sends(daemon, sent)
            daemon.stop(signal.SIGKILL)
            assert isinstance(answer.exception(), httpx.HTTPError)
            qemu.monitor.do("cont")

        with killed() as (daemon, http):
            daemon.event("guest connected")
            daemon.stop(signal.SIGKILL)
        with killed() as (daemon, http):
            qemu.console.says("vchannel: ready")
            kill_while("call", "GET_IP", daemon, http, command=IP)
        with killed() as (daemon, http):
            daemon.event("guest connected")
            # The guest has no network.
            until(lambda: "no address" in http.get("/healthz").json()["unhealthy"]["nas"], "its health", BOOT_TIMEOUT)
            assert 'vhostcomm_guest_state{guest="nas",state="ready"} 1.0' in http.get("/metrics").text
            kill_while("freeze", "FS_FREEZE", daemon, http)
        with killed() as (daemon, http):
            assert "before this one" in daemon.event("thawed")["why"]
            assert post(http, "/guests/nas/freeze", timeout=600)[0] == 200
            daemon.stop(signal.SIGKILL)
        with killed() as (daemon, http):
            assert "before this one" in daemon.event("thawed")["why"]
            assert post(http, "/guests/nas/freeze", timeout=600)[0] == 200
            kill_while("thaw", "FS_UNFREEZE", daemon, http)
        with killed() as (daemon, http):
            assert "before this one" in daemon.event("thawed")["why"]
            assert http.get("/guests/nas").json()["thaw_owed"] is None
            kill_while("shutdown", "POWEROFF", daemon, http, wait=600)
        with served(tmp_path, "nas") as (_, http):
            # The killed daemon's power-off was lost, or has reached the guest.
            status, done = post(http, "/guests/nas/shutdown", wait=80)
            assert status == 409 or (status, done["gone"]) == (200, True), done
            qemu.ends()

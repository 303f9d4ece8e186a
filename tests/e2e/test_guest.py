"""A real kernel in a real QEMU, answered, rebooted and stopped."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.captures.make_golden import FOLDER
from tests.e2e.launched import Console, Images, Launched, command_of
from tests.serving import Serving, run_vhostcomm, started, until
from vchannel import NEVER
from vhostcomm.capture.compare import compare
from vhostcomm.capture.reading import read_capture
from vhostcomm.config.identity import derived_uuid

SERIAL = "1234ABC567890"


def test_guest_boots_from_its_disk_and_gets_all_answers(tmp_path: Path, images: Images) -> None:
    words = ["--boot", str(images.boot), "--system", str(images.system), "--data", str(images.data), "--snapshot"]
    words += [*images.qemu, "--accel", "tcg", "--memory", "512M", "--mac", "02:11:32:00:00:01"]
    words += ["--guest-serial", SERIAL, "--host-serial", "HOST567890123", "--host-mac", "02-11-32-AA-BB-CC"]
    with Launched(tmp_path, *words) as run:
        run.ready()
        assert stat.S_IMODE(run.sock.stat().st_mode) == 0o600
    text = run.console.text
    for line in (
        "[synoboot]",
        "[sda]",
        "[sdb]",
        "Partition Version=8",
        "SYSLINUX",
        "vchannel: port /dev/vport1p1",
    ):
        assert line in text, line
    answers = dict(re.findall(r"vchannel: answer \d+ (\w+) \[\d+ ms\] (.*?)\r?\n", text))
    assert answers == {
        "update_deadline": str(NEVER),
        "guest_serial": SERIAL,
        "guest_uuid": derived_uuid("g", SERIAL),
        "cluster_uuid": derived_uuid("h", "HOST567890123"),
        "host_serial": "HOST567890123",
        "host_version": '{"buildnumber":69057,"smallfixnumber":0}',
        "guest_cpu": '{"cpuinfo":"QEMU, Virtual CPU, X86_64, 1","vcpu_num":1}',
        "vmm_version": '{"id":"Virtualization","name":"Virtual Machine Manager","timestamp":1650802981,"version":"2.6.5-12202"}',
        "host_mac": "02:11:32:aa:bb:cc",
        "host_model": "Virtualhost",
    }
    # The context's SIGTERM has stopped it: the guest powered itself off.
    assert "vchannel: request 6 poweroff" in text
    assert "reboot: Power down" in text
    run.console.kept_to_the_protocol()
    ended = next(line for line in run.log if line["event"] == "QEMU ended")
    assert (ended["kind"], ended["code"]) == ("stopped", 0)
    assert [line["stage"] for line in run.log if line["event"] == "stopping QEMU"] == [
        "the guest's own power-off, through the vchannel"
    ]
    assert {each.name for each in tmp_path.iterdir()} == {"console"}


def test_guest_without_a_daemon_prints_the_genuine_failures(tmp_path: Path, images: Images) -> None:
    """The guest prints the genuine guest's failures; a daemon that starts later ends them."""
    sock, console = tmp_path / "sock", Console(tmp_path / "console")
    command = command_of(*images.direct(timeout=0.5), "--sock", str(sock), "--serial-console", str(console.path))
    with started(command, stdin=subprocess.DEVNULL):
        for line in (
            "install.cgi: guest_command.c:86 Failed to retrieve message from host [timeout]",
            "install.cgi: vdsm_get_update_deadline.c:41 Failed to get vdsm update deadline.",
            "install.cgi: The vdsm is newer than license expire time.",
            "synoagentregisterd: guest_command.c:86 Failed to retrieve message from host [timeout]",
            "synoagentregisterd: vdsm_serial.c:84 Failed to get vdsm sn",
            "synoagentregisterd: vdsm_serial.c:128 Failed to get vdsm sn",
            "synoagentregisterd: vdsm_serial.c:128 Failed to get vdsm sn",
        ):
            console.says(line)
        with Serving("--sock", sock, "--guest-serial", SERIAL):
            assert SERIAL in console.says("vchannel: answer 5 guest_serial")
            console.says("vchannel: ready")


def test_a_stop_waits_for_a_guest_that_boots(tmp_path: Path, images: Images) -> None:
    """The guest is asked to power off as soon as it is up, within the first stage."""
    with Launched(tmp_path, *images.direct(), "--grace", "600") as run:
        run.event("QEMU runs")
        run.process.send_signal(signal.SIGTERM)
        run.event("waiting for a guest that was never ready")
        run.event("the guest powers itself off")
        assert run.ends() == 0
    assert "reboot: Power down" in run.console.text
    assert len([line for line in run.log if line["event"] == "stopping QEMU"]) == 1


def test_a_guest_that_never_comes_up_is_waited_for_within_the_grace(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.idle(tmp_path), "--grace", "6") as run:
        assert "/control/vdsm" in run.event("control surface listening")["sock"]
        run.event("QEMU runs")
        run.process.send_signal(signal.SIGTERM)
        assert run.ends() == 0
    stages = [line for line in run.log if line["event"] == "stopping QEMU"]
    assert [line["stage"].split()[0] for line in stages] == ["the", "the", "QMP"]
    assert all("still ran after" in line["why"] for line in stages[1:])


def test_guest_that_becomes_ready_during_a_stop_powers_itself_off(tmp_path: Path, images: Images) -> None:
    """A guest that becomes ready after the stop has begun is asked to power itself off."""
    with Launched(tmp_path, *images.direct(acpi="wait"), "--grace", "600") as run:
        run.event("QEMU runs")
        run.console.says("acpi: waiting for")
        run.process.send_signal(signal.SIGTERM)
        run.event("the guest powers itself off")
        assert run.ends() == 0
    assert "reboot: Power down" in run.console.text


def test_a_stop_during_a_reboot_waits_for_the_guest(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.with_disks().direct(reboot_once=1), "--grace", "600") as run:
        run.event("guest ready")
        run.event("machine reset")
        run.process.send_signal(signal.SIGTERM)
        run.event("waiting until the guest is ready")
        assert run.ends() == 0
    assert "reboot: Power down" in run.console.text
    assert [line["stage"] for line in run.log if line["event"] == "stopping QEMU"] == [
        "the guest's own power-off, through the vchannel"
    ]


def test_unresponsive_guest_is_stopped_in_stages(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.direct(ignore_poweroff=1), "--grace", "6") as run:
        run.ready()
    assert [line["stage"].split()[0] for line in run.log if line["event"] == "stopping QEMU"] == ["the", "the", "QMP"]
    run.console.says("vchannel: request 6 poweroff")


def test_a_second_signal_skips_ahead(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.direct(ignore_poweroff=1), "--grace", "600") as run:
        run.ready()
        run.process.send_signal(signal.SIGINT)
        run.event("the guest powers itself off")
        run.process.send_signal(signal.SIGINT)
        run.event("stopping faster")
        assert run.ends() == 0


def test_power_button_follows_an_ignored_power_off(tmp_path: Path, images: Images) -> None:
    """The guest ignores the power-off command and obeys the power button, which the next stage presses through QMP."""
    with Launched(tmp_path, *images.direct(acpi=1, ignore_poweroff=1), "--grace", "20") as run:
        run.ready()
    run.console.says("acpi: power button, powering off")
    assert [line["stage"].split()[1] for line in run.log if line["event"] == "stopping QEMU"] == ["guest's", "power"]


def test_hooks_and_log_report_a_reboot(tmp_path: Path, images: Images) -> None:
    calls = tmp_path / "calls"
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\nline=$(set | grep "^VHOSTCOMM_HOOK" | sort | tr "\\n" " "); echo "$line" >> {calls}\n')
    hook.chmod(0o755)

    def ran() -> list[str]:
        """Return the events whose hooks have written their whole line."""
        lines = calls.read_text().splitlines(keepends=True) if calls.exists() else []
        return [line.split("HOOK_EVENT='")[1].split("'")[0] for line in lines if line.endswith("\n")]

    hooks = [
        word
        for event in ("ready", "rebooted", "stopping", "stopped", "crashed")
        for word in ("--on", f"{event}={hook}")
    ]
    with Launched(tmp_path, *images.with_disks().direct(reboot_once=1), *hooks, "--guest-serial", SERIAL) as run:
        run.event("guest ready")
        until(lambda: ran() == ["ready"])  # later hooks would run at the same time
        reset = run.event("machine reset")
        assert (reset["by"], reset["count"]) == ("the guest", 1)
        until(lambda: ran() == ["ready", "rebooted"])
        run.event("guest ready")
        until(lambda: ran() == ["ready", "rebooted", "ready"])
        run.console.says("vchannel: ready")
        run.console.says("vchannel: ready")
        assert run.console.text.count("guest_serial [") == 2
    assert len([line for line in run.log if line["event"] == "machine reset"]) == 1
    assert sorted(ran()[3:]) == ["stopped", "stopping"]
    lines = calls.read_text().splitlines()
    assert "VHOSTCOMM_HOOK_GUEST='vdsm'" in lines[0]
    assert f"VHOSTCOMM_HOOK_SERIAL='{SERIAL}'" in lines[0]
    assert ["VHOSTCOMM_HOOK_KIND='stopped'" in line for line in lines].count(True) == 1


def test_no_reboot_ends_at_a_reboot(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.with_disks().direct(reboot_once=1), "--no-reboot") as run:
        assert run.ends() == 0
    assert [line["kind"] for line in run.log if line["event"] == "QEMU ended"] == ["rebooted"]


@pytest.mark.any_qemu
def test_slow_and_failing_hooks_do_not_affect_the_guest(tmp_path: Path, images: Images) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    loud = tmp_path / "loud"
    loud.write_text("#!/bin/sh\nexec yes aaaaaaaaaaaaaaaaaaaaaaaaaaaa\n")
    for each in slow, loud:
        each.chmod(0o755)
    hooks = [word for each in (slow, loud, "/bin/false", tmp_path / "missing") for word in ("--on", f"ready={each}")]
    with Launched(tmp_path, *images.direct(), *hooks) as run:
        run.ready()
        assert run.event("hook failed")["status"] == 1
        run.process.send_signal(signal.SIGTERM)
        assert run.ends() == 0
        status = Path(f"/proc/{run.process.pid}/status")
    assert [line for line in run.log if line["event"] == "hook can't be run"]
    assert [line for line in run.log if line["event"] == "hooks killed at the end"]
    until(lambda: not status.exists(), "the end of its process")


def test_the_daemon_killed_under_load(tmp_path: Path, images: Images) -> None:
    """The guest asks ten times a second while the daemon is killed with -9 and started again; it continues to ask."""
    sock, console = tmp_path / "sock", Console(tmp_path / "console")
    command = command_of(*images.direct(loop=1, timeout=1), "--sock", str(sock), "--serial-console", str(console.path))
    with ExitStack() as running:
        for number in range(3):
            with Serving("--sock", sock, expect_exit=None) as daemon:
                if not number:
                    running.enter_context(started(command, stdin=subprocess.DEVNULL))
                # A guest may time out before its QEMU has reconnected, and on a busy machine also later.
                for _ in range(5):
                    console.says(" ok")
                daemon.stop(signal.SIGKILL)
            console.says(" timeout")
        with Serving("--sock", sock):
            console.says(" ok")
        assert "stale answer" not in console.text


def test_the_channel_survives_throttling(tmp_path: Path, images: Images) -> None:
    """The daemon stops reading from the guest hundreds of times until the guest is within its rate; no answer is lost.

    The rate is one that an emulated guest exceeds on any machine.
    """
    with Launched(tmp_path, *images.direct(flood=3000, timeout=30), "--frame-rate", "250") as run:
        run.event("guest sends too fast, reading more slowly", times=100)
        assert run.console.says("vchannel: flood sent") == "vchannel: flood sent 3000 answered 3000"
    run.console.says("vchannel: request 6 poweroff")
    run.console.kept_to_the_protocol()
    throttled = [line["throttled"] for line in run.log if line["event"] == "guest gone"]
    assert throttled[-1] >= 200


def test_qemu_as_the_server_of_a_guest_that_repeats_no_ids(tmp_path: Path, images: Images) -> None:
    """The guest's answer to the power-off has request id 0."""
    sock = tmp_path / "qemu.sock"
    with Launched(tmp_path, *images.direct(noecho=1), "--sock", f"connect:{sock}", "--guest-serial", SERIAL) as run:
        run.ready()
        assert f" {SERIAL}" in run.console.text
    run.console.kept_to_the_protocol()
    assert [line["event"] for line in run.log if "unsolicited" in line["event"]] == []
    assert "the guest powers itself off" in [line["event"] for line in run.log]


def test_recording_matches_the_golden_capture(tmp_path: Path, images: Images) -> None:
    """A new recording differs from the stand-in's golden capture only in times, ids and the guest's clock."""
    recording = tmp_path / "out.jsonl"
    with Launched(tmp_path, *images.direct(), "--record", str(recording)) as run:
        run.ready()
    with recording.open() as new, (FOLDER / "stand-in-boot.jsonl").open() as golden:
        found = compare(read_capture(golden), read_capture(new))
    clock = [each.what for each in found if not each.what.startswith("GUEST_TIMESTAMP data")]
    assert clock == []


def test_failed_start_is_reported(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.idle(tmp_path), "--", "-device", "no-such-device", expect_exit=3) as run:
        assert run.ends() == 3
    assert "no-such-device" in "".join(run.other)


@pytest.mark.any_qemu
def test_a_wrong_layout_is_reported_before_the_guest_starts(tmp_path: Path, images: Images) -> None:
    disk = tmp_path / "system.img"
    with disk.open("wb") as made:
        made.truncate(1 << 30)
    words = images.with_disks().direct()
    words[words.index("--system") + 1] = str(disk)
    with Launched(tmp_path, *words) as run:
        run.console.says("Partition layout is not DiskStation style.")
        run.event("guest ready")
    assert "Partition layout is not DiskStation style." in "".join(run.other)


@pytest.mark.any_qemu
def test_mistakes_in_the_command_line(tmp_path: Path, images: Images) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[guests.one]\nsock = "/x/one"\nvcpus = 3\n[guests.two]\nsock = "/x/two"\n')
    good = images.direct()
    del good[good.index("--net") : good.index("--net") + 2]
    for words, what in (
        ([], "give a directory of `vhostcomm install`, --boot or --direct-kernel"),
        ([*good, "--gracee", "5"], "--gracee"),
        ([*good, "stray"], "stray: no directory with a vhostcomm.toml"),
        ([*good, "--net", "wifi"], "user, passt, tap=INTERFACE"),
        ([*good, "--forward", "70000:1", "--net", "user"], "70000"),
        ([*good, "--on", "dawn=/bin/true"], "where EVENT is one of"),
        ([*good, "--grace", "0"], "--grace"),
        ([*good, "--sock", "tcp:127.0.0.1:1"], "a launched guest has a unix socket"),
        ([*good, "--config", str(config)], "c.toml: choose a guest with --guest: one and two"),
        ([*good, "--config", str(config), "--guest", "x"], "c.toml: no guest 'x'; guests: one and two"),
    ):
        ended = run_vhostcomm("run", *words, "--dry-run")
        assert ended.returncode == 2, (words, ended)
        assert what in ended.stderr
    chosen = run_vhostcomm("run", *good, "--config", config, "--guest", "one", "--guest-serial", SERIAL, "--dry-run")
    assert "-smp 3," in chosen.stdout
    assert "path=/x/one," in chosen.stdout
    for sock in ("/y/other", "one=/y/other"):
        moved = run_vhostcomm("run", *good, "--config", config, "--name", "one", "--sock", sock, "--dry-run")
        assert "path=/y/other," in moved.stdout, moved
    assert run_vhostcomm("run", *good, "--dry-run", "--", "-s", "-S").stdout.rstrip().endswith("-s \\\n    -S")


@pytest.mark.any_qemu
def test_two_launchers_with_one_socket(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.idle(tmp_path)) as run:
        run.event("QEMU runs")
        second = run_vhostcomm("run", *images.idle(tmp_path), "--sock", run.sock, "--serial-console", "none")
        assert second.returncode == 1
        assert "another process already serves it" in second.stderr
        assert "Traceback" not in second.stderr
        assert run.stop_at_once() == 0

"""The verbs that ask a running daemon."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import socket
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.control.controlled import INFORMATION, Answers, answering, controlled
from tests.serving import (
    ENVIRONMENT,
    TIMEOUT,
    VHOSTCOMM,
    Serving,
    fake_guest,
    line_from,
    run_vhostcomm,
    started,
    until,
)
from vhostcomm.config.address import Listen
from vhostcomm.control.client import Client, ControlError

IP, UPTIME, POWEROFF, REBOOT, INFO, FREEZE, THAW = 2, 5, 6, 8, 10, 14, 15


def ask(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run_vhostcomm(*words, env=ENVIRONMENT | {"VHOSTCOMM_CONTROL": str(folder / "control")})


def test_guests_and_info(tmp_path: Path) -> None:
    answers: Answers = {INFO: INFORMATION, UPTIME: b"4711\0"}
    with controlled(tmp_path, "--guest-serial", "1234ABC567890"):
        absent = ask(tmp_path, "info")
        assert absent.returncode == 1
        assert "QEMU is not connected" in absent.stderr
        with answering(tmp_path / "nas", answers):
            shown = ask(tmp_path, "info")
            assert shown.returncode == 0, shown.stderr
            for each in ("10.0.2.15", "http://10.0.2.15:5000/", "4711 (inferred)", "1234ABC567890", "ready"):
                assert each in shown.stdout, each
            listed = ask(tmp_path, "guests")
            assert listed.returncode == 0
            assert "nas" in listed.stdout
            assert "10.0.2.15" in listed.stdout
            (found,) = json.loads(ask(tmp_path, "guests", "--json").stdout)
            assert (found["name"], found["state"]) == ("nas", "ready")


@pytest.mark.slow
@pytest.mark.needs("setpriv")
def test_daemons_user_without_a_session_finds_the_units_daemon(tmp_path: Path) -> None:
    """Like `sudo -u USER vhostcomm guests`. A mount namespace gives the test its own /run."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--inh-caps=+dac_read_search"]
    user += ["--ambient-caps=+dac_read_search"]  # the program may be in root's home
    run = "mount -t tmpfs none /run && install -d -m 0700 -o 54321 /run/vhostcomm"
    shell = f'exec unshare --mount sh -c \'{run} && exec {" ".join(user)} "$@"\' sh "$@"'
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": "/run/vhostcomm"}
    without = {key: value for key, value in ENVIRONMENT.items() if key not in {"RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"}}
    with Serving("--sock", "nas=/run/vhostcomm/nas", shell=shell, env=environment) as daemon:
        command = ["nsenter", f"--target={daemon.process.pid}", "--mount", *user, *VHOSTCOMM, "guests"]
        found = subprocess.run(command, env=without, timeout=TIMEOUT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    assert "QEMU is not connected to /run/vhostcomm/nas" in found.stdout


def test_remark_follows_the_answer_in_one_file(tmp_path: Path) -> None:
    printed = tmp_path / "printed"
    with controlled(tmp_path), answering(tmp_path / "nas", {IP: b"10.0.2.15\0"}), printed.open("wb") as file:
        environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL": str(tmp_path / "control")}
        environment.pop("PYTHONUNBUFFERED", None)
        command = [*VHOSTCOMM, "call", "nas", "get_ip"]
        subprocess.run(command, env=environment, stdout=file, stderr=file, timeout=TIMEOUT, check=True)
    assert printed.read_text() == "10.0.2.15\n2 get_ip is inferred: nobody has published what a genuine guest does\n"


@pytest.mark.slow
def test_call_prints_answers_and_rejects_wrong_arguments(tmp_path: Path) -> None:
    answers: Answers = {IP: b"10.0.2.15\0", INFO: INFORMATION, UPTIME: b"\x1b[2J\0", 11: b"no json\0"}
    with controlled(tmp_path), answering(tmp_path / "nas", answers):
        called = ask(tmp_path, "call", "nas", "get_ip")
        assert (called.returncode, called.stdout) == (0, "10.0.2.15\n")
        assert "inferred" in called.stderr
        assert ask(tmp_path, "call", "2").stdout == "10.0.2.15\n"
        assert json.loads(ask(tmp_path, "call", "get_information").stdout) == json.loads(INFORMATION[:-1])
        odd = ask(tmp_path, "call", "get_uptime")
        assert (odd.returncode, odd.stdout) == (1, "\\x1b[2J\n")
        for words, status, why in [
            (["call", "nas", "get_pi"], 2, "get_pi"),
            (["call", "nobody", "get_ip", "x"], 2, "no guest 'nobody'"),
            (["call", "nsa", "get_ip"], 2, "there is no guest 'nsa'; name one of nas"),
            (["call", "nas", "get_ip", "a", "b"], 2, "text with spaces needs quotes"),
            (["call", "get_ip", "a", "b"], 2, "text with spaces needs quotes"),
            (["call"], 2, "call needs"),
            (["call", "reset"], 2, "--i-know-this-is-dangerous"),
            (["call", "reset", "--i-know-this-is-dangerous"], 2, "--allow-dangerous yes"),
            (["call", "get_ip", "x" * 4032], 2, "4031"),
            (["call", "get_dsm_setting", "--timeout", "-1"], 2, "timeout"),
            (["call", "17", "--timeout", "0.1"], 1, "timed out"),
            (["info", "nobody"], 2, "no guest 'nobody'"),
            (["info", "--timeout", "nan"], 2, "must be more than 0"),
            (["shutdown", "--wait", "inf"], 2, "must be more than 0"),
            (["freeze", "--thaw-after", "0"], 2, "must be more than 0"),
            (
                ["guests", "--control", "tcp:127.0.0.1:1", "--control-token", "é" * 20],
                2,
                "a token is 16 to 256 printable characters",
            ),
        ]:
            refused = ask(tmp_path, *words)
            assert refused.returncode == status, (words, refused)
            assert why in refused.stderr, (words, refused.stderr)


@pytest.mark.slow
def test_verbs_freeze_thaw_reboot_and_shut_down(tmp_path: Path) -> None:
    with controlled(tmp_path) as (daemon, _):
        answers: Answers = {POWEROFF: lambda: None, REBOOT: b"", FREEZE: b"", THAW: b""}
        with answering(tmp_path / "nas", answers):
            frozen = ask(tmp_path, "freeze", "--thaw-after", "60")
            assert frozen.returncode == 0
            assert "is frozen until" in frozen.stdout
            assert "frozen" in ask(tmp_path, "guests").stdout
            assert ask(tmp_path, "thaw").returncode == 0
            assert "reboots" in ask(tmp_path, "reboot", "nas").stdout
            gone = ask(tmp_path, "shutdown", "--wait", "20")
            assert gone.returncode == 0
            assert "gone after" in gone.stdout
            assert "QEMU closed the connection" in gone.stdout
        assert "vhostcomm/" in daemon.event("stop requested", how="power-off")["by"]
        refused = ask(tmp_path, "shutdown")
        assert refused.returncode == 1
        assert "not connected" in refused.stderr


@pytest.mark.slow
def test_a_daemon_that_dies_meanwhile_fails_the_shutdown(tmp_path: Path) -> None:
    """The guest may still run."""
    with controlled(tmp_path, expect_exit=-9) as (daemon, _), fake_guest(tmp_path / "nas") as guest:
        guest.serial()
        environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL": str(tmp_path / "control")}
        command = [*VHOSTCOMM, "shutdown", "--wait", "30"]
        with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as waiting:
            guest.until_asked(POWEROFF)
            daemon.process.kill()
            output, errors = waiting.communicate(timeout=TIMEOUT)
    assert (waiting.returncode, output) == (1, b"")
    assert b"the outcome is unknown" in errors


@pytest.mark.slow
def test_shutdown_without_an_answer_fails(tmp_path: Path) -> None:
    with controlled(tmp_path), fake_guest(tmp_path / "nas") as guest:
        guest.serial()
        refused = ask(tmp_path, "shutdown")
    assert refused.returncode == 1
    assert "no answer to poweroff within 10 s" in refused.stderr


@pytest.mark.slow
def test_info_succeeds_without_an_uptime(tmp_path: Path) -> None:
    with controlled(tmp_path), answering(tmp_path / "nas", {INFO: INFORMATION}):
        done = ask(tmp_path, "info", "--json")
    assert (done.returncode, json.loads(done.stdout)["uptime"]) == (0, None), done


@pytest.mark.slow
def test_verbs_without_a_daemon_fail_with_a_remedy(tmp_path: Path) -> None:
    for words in (["guests"], ["info"], ["shutdown", "nas"], ["events"], ["call", "get_ip"]):
        refused = ask(tmp_path, *words)
        assert refused.returncode == 1
        assert f"no daemon to ask: {tmp_path}/control: No such file or directory" in refused.stderr
        assert "vhostcomm serve" in refused.stderr


def test_several_guests_need_a_name(tmp_path: Path) -> None:
    with controlled(tmp_path, "--sock", tmp_path / "two"):
        refused = ask(tmp_path, "shutdown")
        assert refused.returncode == 2
        assert "name one of the guests: nas, two" in refused.stderr


@pytest.mark.slow
def test_watch_and_events_follow_a_guest(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL": str(tmp_path / "control")}
    with (
        controlled(tmp_path) as (daemon, _),
        started(
            [*VHOSTCOMM, "guests", "--watch", "--json"], stdout=subprocess.PIPE, bufsize=0, env=environment
        ) as watch,
        started(
            [*VHOSTCOMM, "events"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env=environment
        ) as events,
    ):
        assert json.loads(line_from(watch))[0]["state"] == "absent"
        until(lambda: shows_a_guest_of(tmp_path / "nas", events), "an event")
        with answering(tmp_path / "nas", {}):
            while "ready" not in line_from(events):
                pass
            while json.loads(line_from(watch))[0]["last_frame"] is None:
                pass
        daemon.stop()
        _, errors = events.communicate(timeout=TIMEOUT)
        assert b"the daemon" in errors
        assert events.wait(TIMEOUT) == watch.wait(TIMEOUT) == 1


def shows_a_guest_of(sock: Path, events: subprocess.Popen[bytes]) -> bool:
    """Connect and disconnect a guest. Only its events show whether `vhostcomm events` follows already."""
    with answering(sock, {}):
        pass
    assert events.stdout
    return bool(select.select([events.stdout], [], [], 0.2)[0])


@pytest.mark.slow
def test_watching_on_a_terminal(tmp_path: Path) -> None:
    """The table is shown again, alone on the screen, whenever something changes; Ctrl-C ends it."""
    terminal, end = pty.openpty()
    environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL": str(tmp_path / "control"), "TERM": "xterm", "COLUMNS": "160"}
    shown = b""

    def shows(what: bytes) -> None:
        nonlocal shown
        while what not in shown:
            assert select.select([terminal], [], [], TIMEOUT)[0], shown
            shown += os.read(terminal, 65536)
        shown = shown.partition(what)[2]

    with (
        controlled(tmp_path) as (daemon, _),
        started([*VHOSTCOMM, "guests", "--watch"], stdin=end, stdout=end, stderr=end, env=environment) as watch,
    ):
        os.close(end)
        shows(b"\x1b[2J")
        shows(b"absent")
        with answering(tmp_path / "nas", {}):
            daemon.event("guest ready")
            shows(b"\x1b[2J")
            shows(b"ready")
        watch.send_signal(signal.SIGINT)
        assert watch.wait(TIMEOUT) == 130
    os.close(terminal)


@pytest.mark.slow
def test_several_daemons_on_one_host(tmp_path: Path) -> None:
    """The first daemon has control.sock, another one a socket with its guest's name. A verb finds its guest's daemon."""
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(tmp_path)}
    environment.pop("VHOSTCOMM_CONTROL", None)

    def there(*words: str) -> subprocess.CompletedProcess[str]:
        return run_vhostcomm(*words, env=environment)

    def serving(name: str, sock: str = "") -> Serving:
        return Serving("--sock", f"{name}={tmp_path / (sock or name)}", env=environment)

    with serving("nas") as first, serving("two") as second:
        assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "control/two.sock").stat().st_mode) == 0o600
        assert [each["name"] for each in json.loads(there("guests", "--json").stdout)] == ["nas", "two"]
        with answering(tmp_path / "two", {IP: b"10.0.2.15\0", INFO: INFORMATION, POWEROFF: lambda: None}):
            second.event("guest ready")
            assert there("call", "two", "get_ip").stdout == "10.0.2.15\n"
            unnamed = there("call", "get_ip")
            assert (unnamed.returncode, "name one of nas, two" in unnamed.stderr) == (2, True), unnamed
            unknown = there("info", "three")
            assert (unknown.returncode, "guests: nas, two" in unknown.stderr) == (2, True), unknown
            with started([*VHOSTCOMM, "events"], stdout=subprocess.PIPE, bufsize=0, env=environment) as events:
                until(lambda: shows_a_guest_of(tmp_path / "nas", events), "an event")
                assert "nas" in line_from(events)
            assert there("shutdown", "two", "--wait", "20").returncode == 0
        with serving("nas", "other") as third:
            assert (tmp_path / "control/nas.sock").is_socket()
            both = there("shutdown", "nas")
            assert both.returncode == 2
            assert f"--control {tmp_path / 'control.sock'} and --control {tmp_path / 'control/nas.sock'}" in both.stderr
            third.stop()
        first.stop()
        # The daemon of a unit's instance has its own runtime directory.
        own = environment | {"RUNTIME_DIRECTORY": f"{tmp_path}-run-own"}
        (tmp_path.parent / f"{tmp_path.name}-run-own").mkdir()
        with Serving("--sock", f"own={tmp_path}/own", env=own):
            assert [each["name"] for each in json.loads(there("guests", "--json").stdout)] == ["two", "own"]
        # A socket that nobody listens on doesn't count.
        assert [each["name"] for each in json.loads(there("guests", "--json").stdout)] == ["two"]


@pytest.mark.slow
def test_a_hanging_daemon_among_several_is_reported(tmp_path: Path) -> None:
    """If a daemon doesn't answer, no guest counts as the only one, and none is reported as missing."""
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(tmp_path)}
    environment.pop("VHOSTCOMM_CONTROL", None)

    def there(*words: str) -> subprocess.CompletedProcess[str]:
        return run_vhostcomm(*words, env=environment, timeout=3 * TIMEOUT)

    with (
        Serving("--sock", f"nas={tmp_path / 'nas'}", env=environment) as hung,
        Serving("--sock", f"two={tmp_path / 'two'}", env=environment),
        answering(tmp_path / "two", {POWEROFF: b"", IP: b"10.0.2.15\0"}) as guest,
    ):
        hung.send_signal(signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(4) as pool:
                unnamed, other, listed, named = pool.map(
                    lambda words: there(*words),
                    (["shutdown"], ["shutdown", "nas"], ["guests", "--json"], ["call", "two", "get_ip"]),
                )
        finally:
            hung.send_signal(signal.SIGCONT)
        assert (unnamed.returncode, "name the guest" in unnamed.stderr) == (1, True), unnamed
        assert (other.returncode, "whether it serves 'nas' is not known" in other.stderr) == (1, True), other
        assert (listed.returncode, [each["name"] for each in json.loads(listed.stdout)]) == (1, ["two"]), listed
        assert "does not answer" in listed.stderr
        assert (named.returncode, named.stdout) == (0, "10.0.2.15\n"), named
        assert sorted(guest.asked) == [IP, INFO]  # INFO by guests, for the address


@pytest.mark.slow
def test_a_wrong_control_address_is_explained() -> None:
    def error(where: str) -> str:
        return run_vhostcomm("guests", "--control", where).stderr

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        where = f"tcp:127.0.0.1:{bound.getsockname()[1]}"
        needs = "a token (VHOSTCOMM_CONTROL_TOKEN), or correct the address\n"
        assert error(where).endswith(f"; start a daemon with --control {where} and {needs}")
    assert error("/etc/passwd").endswith("/etc/passwd: Connection refused; it is not a socket: correct the address\n")


def test_the_remedy_for_a_missing_control_socket_works(short_path: Path) -> None:
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(short_path / "run")}
    for each in "run", "own":
        (short_path / each).mkdir()
    asking = ["guests", "--control", str(short_path / "own/control.sock")]
    remedy = run_vhostcomm(*asking, env=environment).stderr
    start = remedy.partition("start a daemon there, such as vhostcomm serve ")[2].partition(";")[0]
    with Serving(*shlex.split(start), env=environment):
        assert run_vhostcomm(*asking, env=environment).returncode == 0


def test_a_guests_socket_is_no_control_surface(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas", "--control", "none"):
        why = "that is a guest's socket; the control socket is control.sock"
        with pytest.raises(ControlError, match=why):
            Client(Listen(tmp_path / "nas"), margin=0.2).get("/guests")


def test_reload_prints_the_result_or_the_reason(tmp_path: Path) -> None:
    config = tmp_path / "vhostcomm.toml"
    one = f'[guests.one]\nsock = "{tmp_path}/one"\n'
    config.write_text(one)
    with Serving("--config", config, "--control", tmp_path / "control"):
        config.write_text(f'{one}[guests.two]\nsock = "{tmp_path}/two"\n')
        done = ask(tmp_path, "reload")
        assert (done.returncode, done.stdout, done.stderr) == (0, "reloaded, 2 guests\n", "")
        shown = ask(tmp_path, "reload", "--json")
        assert json.loads(shown.stdout) == {"reloaded": True, "guests": ["one", "two"], "needs_restart": []}
        config.write_text(f'{one}[serve]\nframe_rate = 7\nwatch = ["{tmp_path}"]\n')
        changed = "not active before a restart: frame_rate, watch\n"
        assert ask(tmp_path, "reload").stdout == f"reloaded, 1 guest\n{changed}"
        shown = ask(tmp_path, "reload", "--json")
        assert json.loads(shown.stdout)["needs_restart"] == ["frame_rate", "watch"]
        config.write_text(f'{one}[guests.two]\nsock = "{tmp_path}/two"\n')
        assert ask(tmp_path, "reload").stdout == "reloaded, 2 guests\n"
        config.write_text("[guests")
        refused = ask(tmp_path, "reload")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "not TOML" in refused.stderr
        config.write_text("[host]\nserial = 'x'\nfoo = 1\n[guests.one]\nserial = 'y'\n")
        refused = ask(tmp_path, "reload")
        assert refused.returncode == 1
        first, *others = refused.stderr.splitlines()
        assert first.startswith(
            "vhostcomm: not reloaded: 3 mistakes in the configuration; correct that and reload again;"
        )
        places = ["host.serial is 'x'", "host.foo", "guests.one.serial is 'y'"]
        assert [each.partition(f"  {config}: ")[2].partition(":")[0] for each in others] == places
        for name in "ab":
            (tmp_path / name).mkdir()
        config.write_text("".join(f'[guests.{name}]\nsock = "{tmp_path}/{name}"\n' for name in "ab"))
        refused = ask(tmp_path, "reload")
        assert refused.returncode == 1
        for name in "ab":
            assert f"{tmp_path}/{name}: a directory is in the place of the socket" in refused.stderr
        assert [each["name"] for each in json.loads(ask(tmp_path, "guests", "--json").stdout)] == ["one", "two"]


def test_reload_of_one_of_several_daemons_needs_its_socket(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(tmp_path)}
    with Serving("--sock", tmp_path / "a", env=environment), Serving("--sock", tmp_path / "b", env=environment):
        refused = run_vhostcomm("reload", env=environment)
        assert refused.returncode == 2
        assert refused.stderr.count("--control ") == 2

"""One command line for several hosts: their control surfaces, forwarded by a real ssh from a server on the loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import frozen

from tests.control.controlled import INFORMATION, Answers, answering
from tests.needs import need
from tests.serving import (
    ENVIRONMENT,
    TIMEOUT,
    VHOSTCOMM,
    FakeGuest,
    Serving,
    descendants,
    fake_guest,
    line_from,
    run_vhostcomm,
    started,
    until,
)
from vchannel import GuestCommand
from vhostcomm.config.http_address import control_address
from vhostcomm.config.ssh_address import Forwarded, SshAddress, parse
from vhostcomm.control import over_ssh
from vhostcomm.control.client import Client, ControlError

ANSWERS: Answers = {
    GuestCommand.GET_INFORMATION: INFORMATION,
    GuestCommand.GET_UPTIME: b"4711\0",
    GuestCommand.POWEROFF: lambda: None,
}

CONFIG = """\
Host one two
  HostName 127.0.0.1
  Port {port}
Host away
  HostName 127.0.0.1
  Port 1
Host *
  IdentityFile {folder}/user
  IdentityAgent none
  StrictHostKeyChecking no
  UserKnownHostsFile {folder}/known
  LogLevel ERROR
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a user who has ssh's hosts `one` and `two`, and `away`, which can't be reached."""
    need("ssh")
    folder = tmp_path_factory.mktemp("ssh")
    for key in ("server", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    words = [sys.executable, "-m", "tests.control.sshd", folder / "server", folder / "user.pub"]
    root = Path(__file__).parents[2]
    server = subprocess.Popen(
        [*map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root
    )
    try:
        (folder / "config").write_text(CONFIG.format(port=line_from(server), folder=folder))
        # ssh finds its files by the user's entry in passwd, and not by HOME.
        (folder / "bin").mkdir()
        (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nPATH=${{PATH#*:}} exec ssh -F {folder}/config "$@"\n')
        (folder / "bin" / "ssh").chmod(0o755)
        yield ENVIRONMENT | {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
    finally:
        assert server.stdin
        assert server.stdout
        server.stdin.close()
        server.wait(20)
        server.stdout.close()


@frozen
class Hosts:
    """Two daemons with the same configuration, one for each host, and a command line elsewhere."""

    folder: Path
    daemons: dict[str, Serving]
    environment: dict[str, str]

    def ask(self, *words: str, hosts: tuple[str, ...] = ("one", "two")) -> subprocess.CompletedProcess[str]:
        control = [word for host in hosts for word in ("--control", f"ssh://{host}{self.folder}/{host}/control")]
        return run_vhostcomm(*words, *control, env=self.environment)

    def ask_by_environment(self, *words: str) -> subprocess.CompletedProcess[str]:
        control = " ".join(f"ssh://{host}{self.folder}/{host}/control" for host in self.daemons)
        return run_vhostcomm(*words, env=self.environment | {"VHOSTCOMM_CONTROL": control})

    def guests(self) -> list[tuple[str, str | None, str]]:
        found = json.loads(self.ask("guests", "--json").stdout)
        return [(each["name"], each["host"], each["state"]) for each in found]


@pytest.fixture
def hosts(tmp_path: Path, environment: dict[str, str]) -> Iterator[Hosts]:
    common = tmp_path / "common.toml"
    common.write_text('[guests.nas]\nserial = "AAAAAAAAAAAAA"\n[guests.attic]\nserial = "BBBBBBBBBBBBB"\n')
    with ExitStack() as stack:
        daemons = {}
        for host in ("one", "two"):
            folder = tmp_path / host
            folder.mkdir(mode=0o700)
            daemons[host] = stack.enter_context(
                Serving(
                    "--config",
                    common,
                    "--control",
                    folder / "control",
                    env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(folder)},
                )
            )
        yield Hosts(tmp_path, daemons, environment)


def ready(guest: FakeGuest) -> FakeGuest:
    assert guest.serial() == "A" * 13
    return guest


@pytest.mark.slow
def test_a_guest_is_asked_on_the_host_that_has_it(hosts: Hosts) -> None:
    with answering(hosts.folder / "two" / "nas", ANSWERS) as guest:
        assert hosts.guests() == [("nas", "two", "ready"), ("attic", None, "absent")]
        table = hosts.ask("guests").stdout.splitlines()
        assert [line.split()[:3] for line in table] == [
            ["guest", "host", "state"], ["nas", "two", "ready"], ["attic", "absent", table[2].split()[2]],
        ]  # fmt: skip
        info = hosts.ask_by_environment("info", "nas")
        assert "10.0.2.15" in info.stdout, info
        gone = hosts.ask("shutdown", "nas", "--wait", "30")
        assert gone.stdout.startswith("nas: gone after "), gone
        assert GuestCommand.POWEROFF in guest.asked
    assert "shutdown by" in hosts.daemons["two"].event("stop requested")["by"]
    assert hosts.guests() == [("nas", None, "absent"), ("attic", None, "absent")]
    # For a guest that no host has, any host is asked, and reports it.
    assert "QEMU is not connected" in hosts.ask("call", "nas", "get_ip").stderr
    assert "there is no guest 'nass'; name one of nas, attic" in hosts.ask("call", "nass", "get_ip").stderr


@pytest.mark.slow
def test_a_migration_is_decided_by_the_guests_own_answer(hosts: Hosts) -> None:
    """Both hosts' QEMUs are connected. The source stays ready until it leaves a question unanswered."""
    with fake_guest(hosts.folder / "one" / "nas") as source:
        hosts.daemons["one"].event("guest connected")
        with answering(hosts.folder / "two" / "nas", ANSWERS):
            hosts.daemons["two"].event("guest ready")
            assert [each[:2] for each in hosts.guests()][:2] == [("nas", "one"), ("nas", "two")]
            assert "10.0.2.15" in hosts.ask("info", "nas").stdout
            ready(source)
            hosts.daemons["one"].event("guest ready")
            gone = hosts.ask("shutdown", "nas", "--wait", "30")
            assert gone.stdout.startswith("nas: gone after "), gone
    hosts.daemons["two"].event("stop requested")


@pytest.mark.slow
def test_a_guest_that_answers_on_two_hosts_is_asked_on_neither(hosts: Hosts) -> None:
    place = hosts.folder
    with answering(place / "one" / "nas", ANSWERS) as one, answering(place / "two" / "nas", ANSWERS) as two:
        both = hosts.ask("shutdown", "nas")
        assert f"choose one with --control ssh://one{place}/one/control and --control" in both.stderr, both
        assert both.returncode == 2
        assert "10.0.2.15" in hosts.ask("info", "nas", hosts=("two",)).stdout
        assert GuestCommand.POWEROFF not in {*one.asked, *two.asked}


@pytest.mark.slow
def test_hosts_that_cannot_be_asked_are_reported(hosts: Hosts) -> None:
    with answering(hosts.folder / "one" / "nas", ANSWERS):
        listed = hosts.ask("guests", "--json", hosts=("one", "away"))
        assert (listed.returncode, [each["host"] for each in json.loads(listed.stdout)]) == (1, ["one", None])
        assert f"no daemon to ask: ssh://away{hosts.folder}/away/control: ssh ended with 255" in listed.stderr
        # A guest that was found is asked. Whether the host that is away has the other guest is unknown.
        assert "10.0.2.15" in hosts.ask("info", "nas", hosts=("one", "away")).stdout
        assert "whether it serves 'attic' is not known" in hosts.ask("shutdown", "attic", hosts=("one", "away")).stderr
    nobody = hosts.ask("guests", hosts=("two", "one/nowhere"))
    assert (
        f"no daemon listens on /nowhere{hosts.folder}/one/nowhere/control there, or this user may not" in nobody.stderr
    )
    assert nobody.returncode == 1


@pytest.mark.slow
def test_remote_shell_that_hangs_is_given_up(
    hosts: Hosts, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell's time limit begins with the connection. Other hosts are still asked."""
    monkeypatch.setattr(over_ssh, "SHELL_TIMEOUT", 5.0)
    monkeypatch.setenv("PATH", environment["PATH"])
    places = f"ssh://hangs@one{hosts.folder}/one/control", f"ssh://two{hosts.folder}/two/control"
    before = {*descendants(os.getpid())}
    with over_ssh.forwarded([*map(parse, places)]) as (hangs, other):
        why = f"{places[0]}: ssh is connected, but the shell there does not answer within 5 s; try: ssh hangs@one true"
        with pytest.raises(ControlError, match=f"^no daemon to ask: {why}$"):
            Client(hangs).get("/guests")
        assert len(Client(other).get("/guests")["guests"]) == 2
    until(lambda: not {*descendants(os.getpid())} - before, "the end of both ssh")


@pytest.mark.slow
def test_no_ssh_outlives_a_killed_verb(hosts: Hosts) -> None:
    words = [*VHOSTCOMM, "events", "--control", f"ssh://one{hosts.folder}/one/control"]
    with started(words, env=hosts.environment, stdout=subprocess.DEVNULL) as verb:
        until(lambda: descendants(verb.pid), "its ssh")
        (ssh,) = descendants(verb.pid)
        verb.send_signal(signal.SIGKILL)
        verb.wait(TIMEOUT)
    until(lambda: not _lives(ssh), "ssh's end")
    assert verb.returncode == -signal.SIGKILL


def _lives(pid: int) -> bool:
    try:
        return b" Z" not in Path(f"/proc/{pid}/stat").read_bytes()[:60]
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh://h", SshAddress("h", "", "/run/vhostcomm/control.sock")),
        ("ssh://h/", SshAddress("h", "", "/run/vhostcomm/control.sock")),
        ("ssh://root@h.example:22/run/x/c.sock", SshAddress("root@h.example", "22", "/run/x/c.sock")),
        ("ssh://a@[::1]:2222", SshAddress("a@::1", "2222", "/run/vhostcomm/control.sock")),
    ],
)
def test_addresses(text: str, expected: SshAddress) -> None:
    assert parse(text) == expected
    assert str(expected) == str(Forwarded(expected, Path("/run/x"))) == text.rstrip("/")


def test_no_daemon_is_started_at_an_address_of_another_host(tmp_path: Path) -> None:
    gone = Forwarded(parse("ssh://h"), tmp_path / "ended.sock")
    with pytest.raises(ControlError, match=r"ssh://h: No such file or directory; start it \(vhostcomm serve, "):
        Client(gone).get("/guests")


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://-x@h",
        "ssh://h/%h",
        "ssh://h/a:b",
        "ssh://h/a b",
        "ssh://h:x",
        "ssh:h",
    ],
)
def test_addresses_that_could_be_flags_or_are_expanded_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not ssh://\[USER@\]HOST"):
        parse(text)


def test_a_daemon_does_not_listen_elsewhere() -> None:
    with pytest.raises(ValueError, match="a daemon can't listen on another host"):
        control_address("ssh://h")

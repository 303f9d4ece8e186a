"""The command line of `qemu-host`, and the answers that guests get."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from tests.qemu_host.running import QEMU_HOST, QemuHost, error, listens
from tests.serving import TIMEOUT, fake_guest, held_port, run_vhostcomm, started, until
from vchannel import HostCommand
from vhostcomm import __version__
from vhostcomm.config.identity import derived_uuid
from vhostcomm.qemu.argv import vchannel
from vhostcomm.qemu.capabilities import Reconnect
from vhostcomm.qemu.machine import TcpVchannel
from vhostcomm.qemu_host.flags import FLAGS
from vhostcomm.qemu_host.goflags import integer

ASKED = {
    4: HostCommand.HOST_VERSION,
    5: HostCommand.GUEST_SERIAL,
    7: HostCommand.GUEST_CPU,
    8: HostCommand.VMM_VERSION,
    11: HostCommand.GUEST_UUID,
    12: HostCommand.CLUSTER_UUID,
    13: HostCommand.HOST_SERIAL,
    14: HostCommand.HOST_MAC,
    15: HostCommand.HOST_MODEL,
    16: HostCommand.UPDATE_DEADLINE,
}
DEFAULTS = {
    4: '{"buildnumber":69057,"smallfixnumber":0}',
    5: "0000000000000",
    7: '{"cpuinfo":"QEMU, Virtual CPU, X86_64, 1","vcpu_num":1}',
    8: '{"id":"Virtualization","name":"Virtual Machine Manager","timestamp":1650802981,"version":"2.6.5-12202"}',
    11: "d990d22a-e971-ef5f-a7b3-e6374e496b34",
    12: "8b532c79-f207-3510-5067-79268f097d46",
    13: "0000000000000",
    14: "00:00:00:00:00:00",
    15: "Virtualhost",
    16: "9223372036854775807",
}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return run_vhostcomm(*words, program=str(QEMU_HOST))


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ((), {}),
        (
            ("-cpu=4", "-cpu_arch", "Some CPU,,", "--mac=02-11-32-AA-BB-CC", "--model", "Other"),
            {7: '{"cpuinfo":"Some CPU,,, 4","vcpu_num":4}', 14: "02:11:32:aa:bb:cc", 15: "Other"},
        ),
        (
            ("-hostsn=host567890abc", "-guestsn", "1234abc567890"),
            {
                5: "1234ABC567890",
                13: "HOST567890ABC",
                11: derived_uuid("g", "1234ABC567890"),
                12: derived_uuid("h", "HOST567890ABC"),
            },
        ),
        (
            ("-build=72806", "-fixNumber", "3", "-version=2.7.0", "-ts", "1700000000"),
            {
                4: '{"buildnumber":72806,"smallfixnumber":3}',
                8: '{"id":"Virtualization","name":"Virtual Machine Manager","timestamp":1700000000,"version":"2.7.0"}',
            },
        ),
        (
            ("-buildnumber=0x10", "-vmmversion", "9", "-vmmts=1650802981000", "-guestuuid", "6BA7B8109DAD11D180B400C04FD430C8"),
            {
                4: '{"buildnumber":16,"smallfixnumber":0}',
                8: '{"id":"Virtualization","name":"Virtual Machine Manager","timestamp":1650802981000,"version":"9"}',
                11: "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            },
        ),
        (
            ("-guestsn=x", "-hostsn", "much-too-long-for-any-serial", "-mac=", "-cpu=0", "-guestuuid=mine"),
            {
                5: "X",
                7: '{"cpuinfo":"QEMU, Virtual CPU, X86_64, 0","vcpu_num":0}',
                11: "mine",
                12: derived_uuid("h", "much-too-long-for-any-serial"),
                13: "MUCH-TOO-LONG-FOR-ANY-SERIAL",
                14: "",
            },
        ),
    ],
)  # fmt: skip
def test_flags_set_the_answers(tmp_path: Path, words: tuple[str, ...], changed: dict[int, str]) -> None:
    with QemuHost(tmp_path, *words) as host, fake_guest(host.sock) as guest:
        answers = {number: guest.ask(command) for number, command in ASKED.items()}
    assert answers == {number: text.encode() + b"\0" for number, text in (DEFAULTS | changed).items()}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-nonsense"], "unknown flag -nonsense"),
        (["--nonsense=1"], "unknown flag --nonsense"),
        (["-cpu", "many"], "-cpu is 'many': not a whole number"),
        (["-cpu", "99999999999999999999"], "more than 64 bits"),
        (["-cpu"], "-cpu needs a value"),
        (["-timeout=0"], "not a time in seconds"),
        (["-addr", "nowhere"], "-addr is 'nowhere'"),
        (["-addr=unix:relative"], "a unix socket is given by its absolute path"),
        (["-api", "127.0.0.1:99999"], "-api is"),
        (["-addr=/x", "-api=/x"], "two sockets are needed"),
        (["-model", "x" * 5000], "no answer can be made from these flags"),
        (["-h=maybe"], "expected true or false"),
    ],
)
@pytest.mark.slow
def test_invalid_flags_are_rejected(words: list[str], says: str) -> None:
    refused = run(*words)
    assert refused.returncode == 2
    assert says in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize("word", ["-h", "-help", "--help", "-help=true"])
def test_help_lists_each_flag_and_the_arguments_for_qemu(word: str) -> None:
    done = run(word)
    assert done.returncode == 0
    words = list(vchannel(TcpVchannel("127.0.0.1", 12345), Reconnect.SECONDS))
    for line in map(" ".join, zip(words[::2], words[1::2], strict=True)):
        assert f"  {line}" in done.stdout, "the help has the launcher's arguments"
    assert not [name for name in FLAGS if name not in {"h", "help"} and f" -{name} " not in done.stdout]
    assert max(map(len, done.stdout.splitlines())) <= 110


@pytest.mark.parametrize("words", [["-version"], ["--version"], ["-cpu", "2", "-version"]])
def test_version_alone_prints_our_version(words: list[str]) -> None:
    shown = run(*words)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, f"vhostcomm {__version__}\n", "")


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10), ("-3", -3), ("0x1F", 31), ("010", 8), ("0b11", 3), ("1_000", 1000), ("0", 0)]
)
def test_numbers_are_read_as_in_go(text: str, value: int) -> None:
    assert integer(text) == value


@pytest.mark.needs("curl")
def test_both_addresses_may_be_tcp_ports(tmp_path: Path) -> None:
    with held_port() as guest, held_port() as api, started(
        [QEMU_HOST, f"-addr=tcp:127.0.0.1:{guest}", f"-api=:{api}", "some", "-thing"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        until(lambda: listens(guest) and listens(api), "its ports")
        until(lambda: _serial(guest) == "0" * 13, "an answer")
        got = subprocess.run(["curl", "-s", f"http://127.0.0.1:{api}/"], capture_output=True, text=True, check=True)
        process.terminate()
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert got.stdout == error("No command specified")[1]
    assert b"'some'" in errors


def _serial(port: int) -> str:
    with fake_guest(("127.0.0.1", port)) as guest:
        try:
            return guest.serial()
        except (AssertionError, OSError):  # refused: the connection that `listens` made has not ended yet
            return ""


def test_stale_sockets_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    for name in ("guest.sock", "api.sock"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(tmp_path / name))
    with QemuHost(tmp_path) as host:
        second = run("-addr", str(host.sock), "-api", str(tmp_path / "other"))
        assert second.returncode == 1
        assert "another process already serves it" in second.stderr
    for flag, other in (("-addr", "-api"), ("-api", "-addr")):
        (tmp_path / "file").write_text("precious")
        refused = run(flag, str(tmp_path / "file"), other, str(tmp_path / "fine"))
        assert refused.returncode == 1
        assert "a file is in the place of the socket" in refused.stderr
        assert (tmp_path / "file").read_text() == "precious"
        assert not (tmp_path / "fine").exists()


@pytest.mark.parametrize("flag", ["-addr", "-api"])
def test_a_missing_folder_is_reported_with_status_1(tmp_path: Path, flag: str) -> None:
    other = "-api" if flag == "-addr" else "-addr"
    refused = run(f"{flag}={tmp_path}/nodir/x", f"{other}={tmp_path}/fine")
    assert refused.returncode == 1
    assert "nodir" in refused.stderr

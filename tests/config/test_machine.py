"""A guest's machine in the file, and `run` with a folder that has such a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving import ENVIRONMENT, run_vhostcomm
from vhostcomm.config import values
from vhostcomm.config.load import load
from vhostcomm.errors import ConfigError

TEXT = """\
[guests.nas.machine]
boot = "boot.img"
system = "/dev/system"
data = ["one.img", "naa.5001405a"]
mac = "02-11-32-AA-BB-CC"
memory = "2G"
forward = ["5000:5000"]
"""


def test_paths_are_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "vhostcomm.toml").write_text(TEXT)
    found = load(tmp_path / "vhostcomm.toml", environment={"RUNTIME_DIRECTORY": "/run/x"}).guests[0].machine
    assert (found.boot, found.system) == (f"{tmp_path}/boot.img", "/dev/system")
    assert found.data == (f"{tmp_path}/one.img", "naa.5001405a")
    assert (found.mac, found.memory, found.forward) == ("02:11:32:aa:bb:cc", 2 << 30, ("5000:5000",))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('boots = "x"', "guests.nas.machine.boots: unknown; did you mean boot?"),
        ('data = "x"', r'guests.nas.machine.data is .x.: it must be a list of texts.*data = \["data.img"\]'),
        ('memory = "much"', "guests.nas.machine.memory is 'much': a size is a whole number"),
    ],
)
def test_mistakes_in_a_machine_are_reported(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "vhostcomm.toml").write_text(f"[guests.nas.machine]\n{line}\n")
    with pytest.raises(ConfigError, match=words):
        load(tmp_path / "vhostcomm.toml", environment={"RUNTIME_DIRECTORY": "/run/x"})


MISTAKES = """\
[guests.a.machine]
disk_options = "foo=bar"
memory = "512K"
cpu_model = "a b"
net = "wifi"
forward = ["x"]
[guests.b.machine]
net = "tap=tap0"
forward = ["5000:5000"]
[guests.c]
vcpus = 2000
"""


@pytest.mark.parametrize(
    ("verb", "guests"),
    [
        (["config", "validate"], "ab"),
        (["config", "show", "-c"], "ab"),
        (["run", "--guest", "a", "--boot=x", "-c"], "a"),
    ],
    ids=" ".join,
)
def test_all_mistakes_of_machines_are_reported_with_their_keys(tmp_path: Path, verb: list[str], guests: str) -> None:
    file = tmp_path / "m.toml"
    file.write_text(MISTAKES)
    refused = run_vhostcomm(*verb, file)
    assert refused.returncode == 2
    found = [line.strip() for line in refused.stderr.splitlines()[1:]]
    expected = [
        f"{file}: guests.a.machine.disk_options: disk option 'foo=bar': expected NAME=VALUE",
        f"{file}: guests.a.machine.memory: memory is 0: expected 16 to 16777216 MiB",
        f"{file}: guests.a.machine.cpu_model: cpu is 'a b': a processor model",
        f"{file}: guests.a.machine.net: --net wifi: expected user, passt",
        f"{file}: guests.a.machine.forward: --forward x: expected [udp:]",
        f"{file}: guests.b.machine.forward: --forward needs --net user or passt",
    ]
    expected = [each for each in expected if each.split("guests.")[1][0] in guests]
    assert len(found) == len(expected), refused.stderr
    assert all(line.startswith(begin) for line, begin in zip(found, expected, strict=True)), refused.stderr


def test_flags_of_run_override_invalid_settings_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text(MISTAKES)
    words: list[str | Path] = ["run", "--config", file, "--boot", tmp_path / "boot.img", "--net", "user"]
    more = ["--memory", "512", "--cpu-model", "max", "--disk-options", "aio=threads", "--forward", "5000:5000"]
    for each in ["--guest", "a", *more], ["--guest", "b"]:
        assert f"{tmp_path}/boot.img: no such file" in run_vhostcomm(*words, *each).stderr


@pytest.mark.parametrize(
    ("given", "size"), [('"512"', 512 << 20), ("512", 512 << 20), ('"2G"', 2 << 30), ('"16384k"', 16 << 20)]
)
def test_memory_without_a_unit_is_in_mebibytes(tmp_path: Path, given: str, size: int) -> None:
    (tmp_path / "vhostcomm.toml").write_text(f"[guests.nas.machine]\nmemory = {given}\n")
    loaded = load(tmp_path / "vhostcomm.toml", environment={"RUNTIME_DIRECTORY": "/run/x"})
    assert loaded.guests[0].machine.memory == size == values.memory(given.strip('"'))


@pytest.mark.parametrize(("folder", "why"), [("", "not a hugetlbfs"), ("nowhere", "No such file or directory")])
def test_directory_without_huge_pages_is_rejected(tmp_path: Path, folder: str, why: str) -> None:
    """QEMU would make an ordinary file there, and use it as memory."""
    (tmp_path / "boot.img").write_bytes(bytes(4096))
    refused = run_vhostcomm("run", "--boot", tmp_path / "boot.img", "--hugepages", tmp_path / folder)
    assert refused.returncode == 2
    assert f"--hugepages {tmp_path / folder}: {why}; " in refused.stderr


@pytest.mark.needs("qemu-system-x86_64")
def test_a_folder_is_run_and_flags_override_it(tmp_path: Path) -> None:
    """This also works for a user without a session, who has no runtime directory."""
    folder = tmp_path / "a.nas"
    folder.mkdir()
    for name in ("boot", "system", "one", "two"):
        (folder / f"{name}.img").write_bytes(bytes(4096))
    text = (
        TEXT.replace("guests.nas", 'guests."a.nas"')
        .replace("/dev/system", "system.img")
        .replace(', "naa.5001405a"', "")
    )
    (folder / "vhostcomm.toml").write_text(text)
    without = {
        name: value for name, value in ENVIRONMENT.items() if name not in {"XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"}
    }
    words = ["run", str(folder), "--dry-run", "--accel", "tcg"]
    command = run_vhostcomm(*words, env=without).stdout
    for piece in (
        "-name guest=a.nas ",
        "-m 2048 ",
        "hostfwd=tcp:127.0.0.1:5000-:5000",
        "mac=02:11:32:aa:bb:cc",
        f"file={folder}/boot.img,",
        f"file={folder}/system.img,",
        f"file={folder}/one.img,",
    ):
        assert piece in command, piece
    flags = ["--net", "none", "--memory", "1G", "--data", str(folder / "two.img"), "--", "-S"]
    command = run_vhostcomm(*words, *flags, env=without).stdout
    for piece in ("-m 1024 ", f"file={folder}/two.img,", "-S"):
        assert piece in command
    for piece in ("hostfwd", "one.img"):
        assert piece not in command
    assert "no directory with a vhostcomm.toml" in run_vhostcomm("run", tmp_path).stderr
    assert "give only one of them" in run_vhostcomm("run", folder, "--config", folder / "vhostcomm.toml").stderr

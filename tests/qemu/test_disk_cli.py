from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from tests.qemu.disks import GIB, partitioned, sparse
from tests.serving import run_vhostcomm
from vhostcomm import cli
from vhostcomm.qemu.disk.inspection import warning
from vhostcomm.qemu.disk.layouts import CONTAINER, VDSM, Partition

# Cyclopts treats reading sys.argv in a test as a mistake.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens"),
    pytest.mark.needs("sfdisk", "qemu-img"),
]

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    def vhostcomm(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vhostcomm", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    return vhostcomm


def test_init_and_inspect(shell: Shell) -> None:
    assert shell("disk", "init", "sys.img", "--size", "10G") == (
        0,
        "sys.img: raw, 10.0 GiB, VDSM's layout (version 8), no file systems\n",
        "",
    )
    assert shell("disk", "inspect", "sys.img") == (
        0,
        """\
sys.img: raw, 20971520 sectors of 512 bytes (10.0 GiB), partition table: MBR

           expected (version 8)       found
partition      start    sectors type      start    sectors type
1               2048    4980480   83       2048    4980480   83
2            4982528    4194304   82    4982528    4194304   82
3            9437184   the rest   83    9437184   11534336   83

The guest prints:
    Partition Version=8
""",
        "",
    )


def test_inspecting_another_layout(shell: Shell) -> None:
    odd = [VDSM.first, attrs.evolve(VDSM.second, size=6_291_456, type=0x83)]
    partitioned(Path("odd.img"), *odd, Partition(12_000_000, 2048, 0x83), Partition(12_100_000, 2048, 0x83))
    assert shell("disk", "inspect", "odd.img") == (
        1,
        """\
odd.img: raw, 25165824 sectors of 512 bytes (12.0 GiB), partition table: MBR

           expected (version 8)       found
partition      start    sectors type      start    sectors type
1               2048    4980480   83       2048    4980480   83
2            4982528    4194304   82    4982528    6291456   83  ← sectors, type
3            9437184   the rest   83   12000000       2048   83
4                  -          -    -   12100000       2048   83

The guest prints:
    Partition Version=0
    Partition layout is not DiskStation style.
    NOT EXECUTE /sbin/e2fsck.
It isn't VDSM's layout:
    partition 2 has 6291456 sectors, not 4194304
    partition 2 is of type 83, not 82
To make a disk with that layout: vhostcomm disk init IMAGE --size 10G
""",
        "",
    )


def test_missing_third_partition_is_explained(shell: Shell) -> None:
    partitioned(Path("two.img"), VDSM.first, VDSM.second)
    status, out, _ = shell("disk", "inspect", "two.img")
    assert status == 0
    assert "(it is unknown whether guests compare partition 3)\n" in out


def test_an_empty_disk(shell: Shell) -> None:
    sparse(Path("empty.img"), 1 << 20)
    status, out, _ = shell("disk", "inspect", "empty.img")
    assert status == 1
    assert out.startswith("empty.img: raw, 2048 sectors of 512 bytes (1.0 MiB), no partition table\n")
    assert out.count("← missing") == 2
    assert "    it has no partition table\n" in out


def test_inspect_as_json(shell: Shell) -> None:
    shell("disk", "init", "sys.qcow2", "--size", "5g", "--format", "qcow2")
    status, out, _ = shell("disk", "inspect", "sys.qcow2", "--json")
    assert status == 0
    expected = {
        "1": {"start": 2048, "sectors": 4_980_480, "type": "83"},
        "2": {"start": 4_982_528, "sectors": 4_194_304, "type": "82"},
        "3": {"start": 9_437_184, "sectors": None, "type": "83"},
    }
    assert json.loads(out) == {
        "path": "sys.qcow2",
        "format": "qcow2",
        "size": 5 * GIB,
        "table": "dos",
        "partition_version": 8,
        "raid": False,
        "is_vdsm": True,
        "is_container": False,
        "why": [],
        "guest_prints": ["Partition Version=8"],
        "expected": expected,
        "found": expected | {"3": {"start": 9_437_184, "sectors": 1_048_576, "type": "83"}},
    }


def test_exit_statuses(shell: Shell) -> None:
    status, _, err = shell("disk", "inspect", "nowhere.img")
    assert (status, err[:34]) == (1, "vhostcomm: nowhere.img: no such fi")
    assert shell("disk", "inspect")[0] == 2
    assert shell("disk", "init", "sys.img")[0] == 2
    assert shell("disk", "init", "sys.img", "--size", "10G", "--format", "vmdk")[0] == 2
    assert shell("disk", "init", "sys.img", "--size", "1G")[0] == 2
    assert shell("disk", "init", "sys.img", "--size", "10 apples")[0] == 2
    assert not Path("sys.img").exists()
    Path("sys.img").touch()
    assert shell("disk", "init", "sys.img", "--size", "10G")[0] == 1


def test_the_containers_layout_is_known_and_harmless(shell: Shell, tmp_path: Path) -> None:
    partitioned(tmp_path / "sys.img", CONTAINER.first, CONTAINER.second)
    status, printed, complained = shell("disk", "inspect", "sys.img")
    assert (status, complained) == (0, "")
    assert "Partition Version=0" in printed
    assert printed.endswith(
        "This is the layout of the container vdsm/virtual-dsm: genuine guests run on it, and version 0 is harmless.\n"
    )
    assert json.loads(shell("disk", "inspect", "sys.img", "--json")[1])["is_container"] is True
    assert warning(tmp_path / "sys.img") == ""


def test_image_for_two_disks_is_rejected(tmp_path: Path) -> None:
    image, other = tmp_path / "boot.img", tmp_path / "system.img"
    image.write_bytes(bytes(4096))
    other.symlink_to(image)
    refused = run_vhostcomm("run", "--boot", image, "--system", other, "--dry-run")
    assert refused.returncode == 2
    assert f"vhostcomm: {image}: given for two disks, but each disk needs its own image" in refused.stderr


def test_missing_disks_of_a_run_are_one_error(tmp_path: Path) -> None:
    ended = run_vhostcomm("run", "--boot", tmp_path / "nope", "--system", tmp_path / "nope")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert ended.stderr.startswith(f"vhostcomm: {tmp_path}/nope: no such file; ")

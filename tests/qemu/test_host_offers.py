"""Features that depend on the host: queues of a tap interface, huge pages."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.qemu.disks import sparse
from tests.serving import ENVIRONMENT, VHOSTCOMM
from vhostcomm.qemu.host_adaptation import find_hugepages, fitted_tap
from vhostcomm.qemu.machine import TapNet

IN_A_NETWORK: Final = (
    'PATH=$PATH:/usr/sbin; mount -t sysfs none /sys && ip tuntap add dev tap0 mode tap $0 || exit 99; command=$("$@" --dry-run) && '
    'printf "%s\\n" "$command" && printf "quit\\n" | sh -c "$command -monitor stdio"'
)
"""Create a tap interface in a separate network namespace; QEMU opens it and ends."""


@pytest.mark.needs("qemu-system-x86_64", "ip")
@pytest.mark.parametrize(
    ("made", "vcpus", "netdev", "card"),
    [
        ("", 4, "downscript=no", "netdev=hostnet0,romfile"),
        ("multi_queue", 4, "downscript=no,queues=4", "netdev=hostnet0,mq=on,vectors=10"),
        ("multi_queue", 1, "downscript=no,queues=2", "netdev=hostnet0,mq=on,vectors=6"),
        ("multi_queue", 16, "downscript=no,queues=8", "netdev=hostnet0,mq=on,vectors=18"),
    ],
)
def test_queues_of_a_tap_interface(tmp_path: Path, made: str, vcpus: int, netdev: str, card: str) -> None:
    words: list[str | Path] = [
        "--boot",
        sparse(tmp_path / "boot.img", 1 << 20),
        "--net",
        "tap=tap0,vhost=off",
        "--vcpus",
        str(vcpus),
    ]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", IN_A_NETWORK, made,
         *VHOSTCOMM, "run", *words, "--accel", "tcg", "--serial-console", "none", "--sock", tmp_path / "sock"],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 99 or done.stderr.startswith("unshare:"):
        pytest.skip(f"a user may have no network here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert f"script=no,{netdev} \\" in done.stdout
    assert card in done.stdout


def test_missing_tap_interface_is_reported_by_qemu() -> None:
    net = fitted_tap(TapNet("no-such-tap", vhost=True), 4)
    assert (net.vhost, net.queues) == (True, 1)


@pytest.fixture
def pools(tmp_path: Path) -> Path:
    """Stand-in for the kernel's pools: 100 pages of 2 MiB and one of 1 GiB are free."""
    for size, free in ((2048, 100), (1 << 20, 1)):
        pool = tmp_path / f"pools/hugepages-{size}kB"
        pool.mkdir(parents=True)
        (pool / "free_hugepages").write_text(f"{free}\n")
    return tmp_path / "pools"


@pytest.mark.parametrize(
    ("mounts", "memory", "folder", "why"),
    [
        (["hugetlbfs rw,pagesize=2M"], 200, 0, ""),
        (["hugetlbfs rw,pagesize=2M"], 201, None, "{0} has 200 MiB free of the 201 MiB"),
        (["hugetlbfs rw"], 200, 0, ""),
        (["hugetlbfs rw,pagesize=2M", "hugetlbfs rw,pagesize=1024M"], 1024, 1, ""),
        (["hugetlbfs rw,pagesize=4M"], 4, None, "{0} has 0 MiB free of the 4 MiB"),
        (["tmpfs rw"], 4, None, "no hugetlbfs is mounted"),
    ],
)
def test_huge_pages(tmp_path: Path, pools: Path, mounts: list[str], memory: int, folder: int | None, why: str) -> None:
    """The test makes the lists, because an ordinary user can't fill this kernel's pools."""
    folders = [tmp_path / f"a folder {number}" for number in range(len(mounts))]
    for each in folders:
        each.mkdir()
    lines = [
        f"none {str(each).replace(' ', chr(92) + '040')} {mount} 0 0"
        for each, mount in zip(folders, mounts, strict=True)
    ]
    (tmp_path / "mounts").write_text("\n".join(lines) + "\n")
    found = find_hugepages(memory, mounts=str(tmp_path / "mounts"), pools=str(pools))
    assert found == ("" if folder is None else str(folders[folder]), why.format(*folders))


def test_huge_pages_here_are_found_or_the_reason_is_said() -> None:
    folder, why = find_hugepages(64)
    assert bool(folder) != bool(why)

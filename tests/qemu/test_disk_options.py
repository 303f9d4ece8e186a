"""Options of disks: their values, and replacements for options that the host lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.qemu.disks import sparse
from tests.serving import ENVIRONMENT, VHOSTCOMM
from vhostcomm.errors import QemuError
from vhostcomm.qemu.disk.io_modes import direct_problem, fitted, io_uring_problem, native_problem
from vhostcomm.qemu.disk.options import Aio, Cache, DetectZeroes, DiskOptions, parse, split

NO_DIRECT: Final = "/proc/version"
"""A file on a file system that rejects O_DIRECT on every kernel."""


def test_the_defaults_are_the_genuine_hosts_and_the_containers() -> None:
    defaults = parse("")
    assert (defaults.cache, defaults.effective_aio, defaults.detect_zeroes) == (Cache.NONE, Aio.NATIVE, DetectZeroes.ON)
    assert (defaults.discard, defaults.rotation_rate, defaults.iothread, defaults.serial) == (True, 1, True, "")


@pytest.mark.parametrize(
    ("disk", "parts"),
    [
        ("data.img", ("data.img", "")),
        ("data.img,serial=A1", ("data.img", "serial=A1")),
        ("/a,b/data,1.img,aio=threads,cache=writeback", ("/a,b/data,1.img", "aio=threads,cache=writeback")),
        ("/a,foo=bar", ("/a,foo=bar", "")),
        ("/a,cache=none/b", ("/a,cache=none/b", "")),
        (",cache=none", (",cache=none", "")),
    ],
)
def test_options_follow_the_path(disk: str, parts: tuple[str, str]) -> None:
    assert split(disk) == parts


def test_a_disks_own_options_override_those_of_all() -> None:
    of_all = parse("aio=io_uring,rotation-rate=7200")
    assert parse("rotation-rate=1,serial=X", of_all) == DiskOptions(aio=Aio.IO_URING, serial="X")
    assert parse("cache=writeback", parse("aio=native")).effective_aio is Aio.THREADS


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("cache", "where NAME is one of cache, aio, discard, detect-zeroes, rotation-rate, serial, iothread"),
        ("cash=none", "where NAME is one of"),
        ("cache=fast", "cache=fast: expected one of none, directsync, writeback, writethrough, unsafe"),
        ("iothread=yes", "iothread=yes: expected one of on, off"),
        ("aio=native,cache=writeback", "native AIO needs cache=none or directsync; use aio=threads"),
        ("detect-zeroes=unmap,discard=off", "freeing space needs discard=unmap"),
        ("rotation-rate=fast", "expected rotations per minute"),
        ("rotation-rate=1000", "expected 0 \\(unknown\\), 1 \\(an SSD\\), or 1025 to 65534"),
        ("serial=a b", "1 to 36 of"),
        (f"serial={'x' * 37}", "1 to 36 of"),
    ],
)
def test_invalid_options_are_rejected(text: str, why: str) -> None:
    with pytest.raises(QemuError, match=why):
        parse(text)


def test_capable_host_keeps_all_options(tmp_path: Path) -> None:
    image = sparse(tmp_path / "data.img", 1 << 20)
    if problem := direct_problem(str(image)) or native_problem() or io_uring_problem():
        pytest.skip(problem)
    for options in (DiskOptions(), parse("aio=io_uring"), parse("cache=unsafe")):
        assert fitted(str(image), options, io_uring=True) == (options, ())


@pytest.mark.parametrize(
    ("text", "cache", "aio"),
    [
        ("", Cache.WRITEBACK, Aio.THREADS),
        ("aio=native", Cache.WRITEBACK, Aio.THREADS),
        ("cache=directsync", Cache.WRITETHROUGH, Aio.THREADS),
        ("aio=threads", Cache.WRITEBACK, Aio.THREADS),
    ],
)
def test_without_o_direct_the_safety_of_writes_stays(text: str, cache: Cache, aio: Aio) -> None:
    options, (why,) = fitted(NO_DIRECT, parse(text), io_uring=True)
    assert (options.cache, options.effective_aio) == (cache, aio)
    assert why == f"no O_DIRECT (its file system refuses it): cache={cache.value}, aio={aio.value}"


def test_a_qemu_without_io_uring(tmp_path: Path) -> None:
    image = sparse(tmp_path / "data.img", 1 << 20)
    options, (why,) = fitted(str(image), parse("aio=io_uring,cache=writeback"), io_uring=False)
    assert (options.cache, options.effective_aio) == (Cache.WRITEBACK, Aio.THREADS)
    assert why == "no io_uring (QEMU is built without it): aio=threads"


def test_kernel_without_io_uring_and_native_aio(tmp_path: Path) -> None:
    """Limits of descriptors and address space have the same effect as a container that denies the system calls."""
    image = sparse(tmp_path / "data.img", 1 << 20)
    script = f"""
import os, resource
from vhostcomm.qemu.disk.io_modes import fitted, io_uring_problem, native_problem
from vhostcomm.qemu.disk.options import parse
assert not native_problem() and not io_uring_problem(), (native_problem(), io_uring_problem())
spare = os.open("/", os.O_RDONLY)
os.close(spare)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
print(io_uring_problem())
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20))
options, why = fitted({str(image)!r}, parse("cache=directsync"), io_uring=True)
print(options.cache.value, options.effective_aio.value, *why)
"""
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if "AssertionError" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.stdout.splitlines() == [
        "Too many open files",
        "directsync threads no native AIO (Cannot allocate memory): aio=threads",
    ], done.stderr


@pytest.mark.needs("qemu-system-x86_64")
def test_a_guest_starts_where_o_direct_cannot_be_had(tmp_path: Path) -> None:
    """On a ramfs, which has no O_DIRECT, the log names the replacement and QEMU opens the disk."""
    place = tmp_path / "place"
    place.mkdir()
    words = ["--data", f"{place}/data.img,serial=A1", "--boot", f"{place}/boot.img", "--accel", "tcg", "--net", "none"]
    script = (
        'mount -t ramfs none "$0" || exit 99; truncate -s 1M "$0/data.img" "$0/boot.img"; command=$("$@" --dry-run)'
        ' && printf "%s\\n" "$command" && printf "quit\\n" | sh -c "$command -monitor stdio"'
    )
    mounting: list[str | Path] = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, place]
    done = subprocess.run(
        [*mounting, *VHOSTCOMM, "run", *words, "--serial-console", "none", "--sock", tmp_path / "sock"],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 99 or done.stderr.startswith("unshare:"):
        pytest.skip(f"a user may not mount here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no O_DIRECT (its file system refuses it): cache=writeback, aio=threads") == 2
    assert f"file={place}/data.img,if=none,id=drive-userdata0,format=raw,cache=writeback,aio=threads" in done.stdout
    assert "serial=A1" in done.stdout

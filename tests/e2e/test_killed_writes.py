"""What a disk has confirmed to the guest is in its image, also if QEMU is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.launched import Images, Launched

WRITES: Final = 30
"""A guest has confirmed so many before QEMU is killed; each has a flush of its own."""


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize(("kind", "options"), [("raw", ""), ("qcow2", ",cache=writeback,aio=threads")])
def test_no_confirmed_write_is_lost_when_qemu_is_killed(
    tmp_path: Path, images: Images, kind: str, options: str
) -> None:
    image = tmp_path / "data"
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, image, "64M"], check=True)
    with Launched(tmp_path, *images.with_only(f"{image}{options}").direct(confirm=1), expect_exit=None) as run:
        run.event("QEMU runs")
        run.console.says(f"confirmed {WRITES}")
        os.kill(run.qemu_pid, signal.SIGKILL)
        assert run.ends() != 0
    # The lines end as a serial port's do; one without its end was perhaps cut off in its number.
    confirmed = [int(number) for number in re.findall(r"^confirmed (\d+)\r?\n", run.console.text, re.MULTILINE)]
    assert confirmed == list(range(len(confirmed)))
    assert len(confirmed) > WRITES
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", image, raw], check=True)
    data = raw.read_bytes()
    assert [number for number in confirmed if data[number * 512 :][:8] != b"%08d" % number] == []

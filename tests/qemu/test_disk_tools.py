"""Signals that arrive while a disk tool starts or runs."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import pytest

from vhostcomm.linux.signals import ended_by_signals
from vhostcomm.qemu.disk import tools

pytestmark = pytest.mark.needs("qemu-img")


@pytest.mark.parametrize(
    ("number", "ended"),
    [(signal.SIGTERM, SystemExit(143)), (signal.SIGHUP, SystemExit(129)), (signal.SIGINT, KeyboardInterrupt())],
)
def test_no_tool_outlives_a_signal_at_its_start(
    number: int, ended: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal arrives when the child exists, but before `Popen` has returned it."""
    children: list[subprocess.Popen[str]] = []

    class Started(subprocess.Popen[str]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            children.append(self)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(subprocess, "Popen", Started)
    with pytest.raises(type(ended)) as raised, ended_by_signals():
        tools.run("qemu-img", "--help", path="here")
    assert raised.value.args == ended.args
    (child,) = children
    assert child.returncode is not None, "the tool was not killed and reaped"

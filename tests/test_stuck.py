"""The process of a stuck test ends, and the report names the test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.leftovers import MARK, processes_marked
from tests.serving import ENVIRONMENT, TIMEOUT

ROOT = Path(__file__).parents[1]

STUCK = """
import os, subprocess, threading, time, pytest, trio

def test_trio_waits_for_a_thread():
    trio.run(trio.to_thread.run_sync, threading.Event().wait)

def test_lock_in_c_ignores_signals():
    reading, writing = os.pipe()
    stream = os.fdopen(reading, "rb")
    threading.Thread(target=stream.read, daemon=True).start()
    time.sleep(0.1)
    stream.close()

def test_cleanup_waits_after_the_timeout():
    with subprocess.Popen(["sleep", "1000"]) as process:
        process.wait()

@pytest.fixture
def waits_at_its_end():
    yield
    threading.Event().wait()

def test_teardown_after_a_failure(waits_at_its_end):
    assert False

@pytest.fixture
def waits():
    threading.Event().wait()

def test_setup(waits):
    pass

def test_well():
    pass
"""


@pytest.mark.slow
def test_stuck_tests_are_named_and_the_others_run(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "test_it.py").write_text(STUCK)
    mark = f"{os.environ[MARK]}/stuck"
    plugins = [word for name in ("xdist", "pytest_timeout", "tests.conftest") for word in ("-p", name)]
    words = ["-o", "stuck=3", "-o", "timeout=1", "-n2", "-q", "--import-mode=importlib", f"--rootdir={tmp_path}"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-p", "no:cacheprovider", *words, tmp_path / "test_it.py"],
        cwd=ROOT, env=ENVIRONMENT | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", MARK: mark}, capture_output=True,
        text=True, timeout=3 * TIMEOUT, check=False,
    )  # fmt: skip
    assert ended.returncode == 1, ended
    assert " 1 passed" in ended.stdout, ended.stdout
    failed = set(re.findall(r"test_it.py::(\w+)", ended.stdout))
    assert failed == set(re.findall(r"def (test_\w+)", STUCK)) - {"test_well"}, ended.stdout
    # A new process replaced that of each stuck test, and children of the tests have ended with the run.
    assert ended.stderr.count("Timeout (0:00:03)!") == 3  # pytest-timeout's signal ended the others
    assert not processes_marked(mark)


def test_programs_are_started_so_that_a_failure_ends_them() -> None:
    """They use `started`, or a class whose context ends them. The context of a Popen would wait forever."""
    places = {path.name for path in (ROOT / "tests").rglob("*.py") if "with subprocess.Popen(" in path.read_text()}
    assert places == {"serving.py", "test_stuck.py"}

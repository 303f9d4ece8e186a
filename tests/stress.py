"""``make stress``: run the unit suite several times with every core busy; list failed tests with their number of failures.

python -m tests.stress RUNS [PYTEST'S WORDS …]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def busy_cores() -> Iterator[None]:
    """Run one endless loop for each core during the context."""
    loops = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for each in loops:
            each.kill()
            each.wait()


def failed_in(report: Path) -> Iterator[str]:
    """Return the tests that failed, or whose setup or teardown failed."""
    for case in ET.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            yield f"{case.get('classname')}::{case.get('name')}"


def main(runs: int, words: list[str]) -> int:
    failures: Counter[str] = Counter()
    statuses = []
    workers = str(len(os.sched_getaffinity(0)) + 1)
    with busy_cores(), tempfile.TemporaryDirectory(prefix="vhostcomm-stress-") as folder:
        report = Path(folder) / "report.xml"
        pytest = [sys.executable, "-m", "pytest", "-q", "-n", workers, "--dist", "worksteal", f"--junit-xml={report}"]
        for run in range(1, runs + 1):
            print(f"run {run} of {runs}", flush=True)
            report.unlink(missing_ok=True)
            statuses.append(subprocess.run([*pytest, *words], check=False).returncode)
            if report.exists():
                failures.update(failed_in(report))
    for name, count in failures.most_common():
        print(f"failed {count} of {runs}: {name}")
    print(f"{statuses.count(0)} of {runs} runs passed")
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))

"""Run tests with mutants, in processes forked from one that has imported everything and run every test."""

from __future__ import annotations

import gc
import os
import resource
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Final

import coverage
import pytest

from tests.mutants.planting import Mutant, Place, caches, functions_at, lines_of, plant

OPTIONS: Final = [
    *("-q", "--capture=no", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=mutants"),
    *("--tb=native", "--assert=plain"),  # nobody reads the reasons, and pytest's own take longer than the test
    *("-o", "timeout=20"),  # kills a mutant that waits forever
]

SURVIVED: Final = "survived"
KILLED: Final = "killed"
UNTESTED: Final = "no test calls it"
BROKEN: Final = "could not be planted"

_STATUS: Final = {0: SURVIVED, 1: KILLED, 2: BROKEN}


class Runner:
    """A pytest plugin that runs each collected test once, and then, for each mutant, the tests that call its function.

    Args:
        mutants: to plant.
        results: the file to which each mutant's key, a tab and its outcome are appended.
    """

    def __init__(self, mutants: list[Mutant], results: Path) -> None:
        self._mutants = mutants
        self._results = results
        self._failed = False
        self._caches = caches()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed = self._failed or report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Replace pytest's own loop."""
        if session.testsfailed:
            raise session.Failed("the tests can't be collected")
        functions = functions_at({each.place for each in self._mutants})
        self._caches = caches()
        callers, seconds = self._callers(session, functions)
        kills = Counter[tuple[Place, str]]()
        gc.collect()
        gc.freeze()
        with self._results.open("a") as results:
            for mutant in self._mutants:
                tests = sorted(
                    callers.get(mutant.place, []),
                    key=lambda test: (-kills[mutant.place, test.nodeid], seconds[test]),
                )
                outcome, killer = UNTESTED, ""
                if tests:
                    limit = 4 * sum(seconds[test] for test in tests) + 2
                    outcome, killer = self._fork(mutant, functions[mutant.place], tests, round(limit))
                kills[mutant.place, killer] += 1
                results.write(f"{mutant.key}\t{outcome}\t{killer}\n")
                results.flush()
        return True

    def _callers(
        self, session: pytest.Session, functions: dict[Place, list[FunctionType]]
    ) -> tuple[dict[Place, list[pytest.Item]], dict[pytest.Item, float]]:
        """Run each test. Returns which tests call each function, and the seconds of CPU that each test took."""
        seconds: dict[pytest.Item, float] = {}
        measured = coverage.Coverage(data_file=None, config_file=False, include=[file for file, _ in functions])
        measured.start()
        for test in session.items:
            measured.switch_context(test.nodeid)
            began = time.process_time()
            self._run(test)
            seconds[test] = time.process_time() - began
            if self._failed:
                raise session.Failed(f"{test.nodeid} fails without a mutant")
        measured.stop()
        tests = {test.nodeid: test for test in session.items}
        found = {file: measured.get_data().contexts_by_lineno(file) for file, _ in functions}
        callers = {
            place: [
                tests[name]
                for name in {name for line in lines_of(made[0].__code__) for name in found[place[0]].get(line, ())}
                if name in tests
            ]
            for place, made in functions.items()
        }
        return callers, seconds

    def _run(self, test: pytest.Item) -> None:
        for cache in self._caches:
            cache.cache_clear()
        # With this `nextitem`, fixtures of the session stay; all others are created for each test.
        test.ihook.pytest_runtest_protocol(item=test, nextitem=test.session)

    def _fork(
        self, mutant: Mutant, functions: list[FunctionType], tests: list[pytest.Item], limit: int
    ) -> tuple[str, str]:
        """Plant a mutant in a new process, and run tests until one fails. Returns the outcome and that test."""
        reading, writing = os.pipe()
        if not (child := os.fork()):
            status = 2
            try:
                os.setpgid(0, 0)
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
                plant(mutant, functions)
                status = 1
                for test in tests:
                    self._run(test)
                    if self._failed:
                        os.write(writing, test.nodeid.encode())
                        os._exit(1)
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        with suppress(ProcessLookupError):  # programs that it has started
            os.killpg(child, signal.SIGKILL)
        with os.fdopen(reading) as file:
            killer = file.read()
        return _STATUS[os.waitstatus_to_exitcode(status)] if os.WIFEXITED(status) else KILLED, killer


def run(mutants: list[Mutant], tests: list[str], results: Path) -> int:
    """Plant mutants, and append their outcomes to `results`. Returns pytest's exit status."""
    with results.with_suffix(".log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    return pytest.main([*OPTIONS, *tests], plugins=[Runner(mutants, results)])

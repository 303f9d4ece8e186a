"""``make mutants``: plant faults in the most important code, one at a time, and count those that no test notices.

python -m tests.mutants [GROUP …]

mutmut makes the mutants. Outcomes are kept in build/mutants, so the next run continues an interrupted one. A killed mutant
is planted again only after its function changes, a survivor after a test changes. Mutants that only change the words of a
text are not counted, because no test should quote every sentence.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from attrs import frozen

from tests.mutants.accepted import accepted, is_only_words
from tests.mutants.planting import ROOT, Mutant, mutants_of
from tests.mutants.running import KILLED, run

FOLDER: Final = ROOT / "build" / "mutants"

WANTED: Final = 95
"""Per cent of a group's mutants that its tests must kill."""

IN_OTHER_PROCESSES: Final = {"certificates.py"}
"""Modules whose tests start programs."""


@frozen
class Group:
    """Code to mutate, as patterns of files, and the tests that must notice its mutants, as arguments of pytest."""

    code: list[str]
    tests: list[str]


GROUPS: Final = {
    # Junk fed byte by byte takes most of the time, and kills no more mutants than other junk.
    "vchannel": Group(["protocol/vchannel/*.py"], ["tests/vchannel", "-k", "not (junk and byte)"]),
    "guest": Group(["vhostcomm/guest/*.py"], ["tests/model"]),
    "qemu": Group(
        ["vhostcomm/qemu/ending.py", "vhostcomm/qemu/stopping.py"],
        ["tests/qemu/test_ending.py", "tests/qemu/test_stopping.py"],
    ),
    # Without the tests that start programs, because a mutant is planted only in this process.
    "config": Group(
        ["vhostcomm/config/*.py"],
        [
            *(
                f"tests/config/test_{name}.py"
                for name in ("address", "files", "load", "machine", "mistakes", "models", "reading", "socks", "values")
            ),
            "tests/config/test_config_cli.py::test_template_is_valid_with_every_line_uncommented",
            "tests/cluster/test_tree.py",
            "tests/control/test_over_ssh.py::test_addresses",
            "tests/control/test_over_ssh.py::test_addresses_that_could_be_flags_or_are_expanded_are_rejected",
            "tests/daemon/test_several_hosts.py::test_error_for_a_file_of_another_group_names_the_group",
            *("-m", "not slow", "-k", "not reload and not passed_descriptors and not folder_is_run"),
        ],
    ),
    "token": Group(["vhostcomm/control/admission.py"], ["tests/control/test_admission.py"]),
}


def main(names: list[str]) -> int:
    if wrong := set(names) - set(GROUPS):
        print(f"no group {', '.join(sorted(wrong))}; there are {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    passed = [passes(name, GROUPS[name]) for name in names or GROUPS]
    return 0 if all(passed) else 1


def passes(name: str, group: Group) -> bool:
    """Plant a group's mutants. Returns whether its tests kill enough of them."""
    files = [
        file for pattern in group.code for file in sorted(ROOT.glob(pattern)) if file.name not in IN_OTHER_PROCESSES
    ]
    mutants = [made for file in files for made in mutants_of(file)]
    tests = (file for file in ROOT.glob("tests/**/*.py") if file.parent != Path(__file__).parent)
    results = FOLDER / f"{name}-{_digest(tests)}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    done = known(name, results)
    left = [each for each in mutants if each.key not in done]
    workers = [
        get_context("fork").Process(target=_work, args=(left[number::cores], group.tests, results))
        for cores in [len(os.sched_getaffinity(0))]
        for number in range(min(cores, len(left)))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        print(f"{name}: the tests don't pass without a mutant; see {results}.log", file=sys.stderr)
        return False
    return report(name, mutants, known(name, results))


def _work(mutants: list[Mutant], tests: list[str], results: Path) -> None:
    sys.exit(run(mutants, tests, results))


def _digest(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:8]


def known(name: str, results: Path) -> dict[str, str]:
    """Read the outcomes by the mutants' keys: those with the same tests, and all that were killed before."""
    found = {}
    for file in FOLDER.glob(f"{name}-????????"):
        for line in file.read_text().splitlines():
            key, outcome, _ = line.split("\t")
            if file == results or outcome == KILLED:
                found[key] = outcome
    return found


def report(name: str, mutants: list[Mutant], outcomes: dict[str, str]) -> bool:
    """Print the survivors, and how many were killed. Returns whether enough were."""
    survivors = [each for each in mutants if outcomes[each.key] != KILLED and not is_only_words(each.difference)]
    excused = {each.name: why for each in survivors if (why := accepted(each.difference))}
    for mutant, why in excused.items():
        print(f"{mutant}: accepted, {why}")
    left = [each for each in survivors if each.name not in excused]
    for each in left:
        print(f"{each.name}: {outcomes[each.key]}\n{each.difference}")
    counted = len(left) + sum(outcomes[each.key] == KILLED for each in mutants)
    share = 100 * (counted - len(left)) / max(counted, 1)
    print(f"{name}: {counted} mutants, {share:.1f} % killed, {len(excused)} more accepted")
    return share >= WANTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

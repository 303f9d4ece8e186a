"""``make mutants``: plants faults in the code that matters most, one at a time, and counts those that no test notices.

python -m tests.mutants [GROUP …]

mutmut plants them and runs the tests that reach each. It needs a folder of its own, in which each module lies where it is
imported from. Mutants that only change the words of a text aren't counted: no test should quote every sentence.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from attrs import frozen

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "build" / "mutants"

WANTED: Final = 95
"""Per cent of a group's mutants that its tests must kill."""


@frozen
class Group:
    """Code to mutate, as patterns of files, and the tests that must notice, as arguments of pytest."""

    code: list[str]
    tests: list[str]


GROUPS: Final = {
    # A mutant imports mutmut, and test_doors allows the codec hardly any import.
    "vchannel": Group(["vchannel/*"], ["tests/vchannel", "--ignore=tests/vchannel/test_doors.py"]),
    "guest": Group(["vhostcomm/guest/*"], ["tests/model"]),
    "qemu": Group(
        ["vhostcomm/qemu/ending.py", "vhostcomm/qemu/stopping.py"],
        ["tests/qemu/test_ending.py", "tests/qemu/test_stopping.py"],
    ),
    "config": Group(["vhostcomm/config/*"], ["tests/config"]),
    "token": Group(["vhostcomm/control/admission.py"], ["tests/control/test_admission.py"]),
}

ACCEPTED: Final[dict[str, str]] = {}
"""Survivors that are right, with the reason: the mutant behaves as the code does."""


def copied(group: Group) -> Path:
    """A folder with the files of the checkout, the codec beside `vhostcomm`, and mutmut's configuration."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, FOLDER / name)
    shutil.copytree(FOLDER / "protocol/vchannel", FOLDER / "vchannel")
    others = sorted({name.split("/")[0] for name in listed.split("\0") if name} - {"vhostcomm", "vchannel"})
    written = {
        "source_paths": ["vchannel", "vhostcomm"],
        "only_mutate": group.code,
        "also_copy": others,
        "pytest_add_cli_args_test_selection": group.tests,
    }
    with (FOLDER / "pyproject.toml").open("a") as file:
        file.write("\n[tool.mutmut]\n" + "".join(f"{key} = {value!r}\n" for key, value in written.items()))
    tomllib.loads((FOLDER / "pyproject.toml").read_text())
    return FOLDER


def mutmut(*words: str) -> str:
    """What a command of mutmut prints, in the folder."""
    command = [str(Path(sys.executable).with_name("mutmut")), *words]
    return subprocess.run(command, cwd=FOLDER, check=True, stdout=subprocess.PIPE, text=True).stdout


def is_only_words(difference: str) -> bool:
    """Whether a mutant differs in a text's letters alone: mutmut writes it in capitals, in small letters or between XX."""
    old, new = (
        "".join(line[1:] for line in difference.splitlines() if re.match(rf"\{sign}(?!{re.escape(sign * 2)})", line))
        for sign in "-+"
    )
    return old.casefold() == new.replace("XX", "").casefold() and old != new


def run(name: str) -> bool:
    """Mutate a group's code. Returns whether enough were killed, and no survivor is unknown."""
    copied(GROUPS[name])
    mutmut("run", "--max-children", str(len(os.sched_getaffinity(0))))
    found = dict(re.findall(r"^\s+(\S+): (.+)$", mutmut("results", "--all", "true"), re.MULTILINE))
    survived = {mutant: mutmut("show", mutant) for mutant, what in found.items() if what in {"survived", "no tests"}}
    left = {mutant: shown for mutant, shown in survived.items() if not is_only_words(shown)}
    counted = len(found) - len(survived) + len(left)
    for mutant, shown in left.items():
        print(f"{mutant}: {ACCEPTED.get(mutant, found[mutant])}\n{shown}")
    unknown = [mutant for mutant in left if mutant not in ACCEPTED]
    share = 100 * (counted - len(left)) / max(counted, 1)
    print(f"{name}: {counted} mutants, {share:.1f} % killed, {len(unknown)} survivors without a known reason")
    return share >= WANTED


def main(names: list[str]) -> int:
    if wrong := set(names) - set(GROUPS):
        print(f"no group {', '.join(sorted(wrong))}; there are {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    results = [run(name) for name in names or GROUPS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

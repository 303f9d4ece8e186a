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
    # Without the tests that start programs: a mutant is planted in this process alone.
    "config": Group(
        ["vhostcomm/config/*"],
        [
            *(
                f"tests/config/test_{name}.py"
                for name in ("address", "files", "load", "machine", "models", "reading", "socks", "values")
            ),
            "tests/config/test_config_cli.py::test_the_template_is_toml_with_every_line_in_force",
            "tests/control/test_over_ssh.py::test_addresses",
            "tests/control/test_over_ssh.py::test_addresses_that_could_be_flags_or_are_expanded",
            "tests/daemon/test_several_hosts.py::test_a_file_for_another_group_names_it",
            *("-m", "not slow", "-k", "not reload and not handed_over and not folder_is_run"),
        ],
    ),
    "token": Group(["vhostcomm/control/admission.py"], ["tests/control/test_admission.py"]),
}

ACCEPTED: Final = {
    r"-    if type\(evidence\) is Frame and self.channel is _R": "the general path does the same, only slower",
    r"-        case _:\n-            pass": "other evidence changes nothing either way",
    r"-        value = None\n\+        value = \"\"": "neither is an object of JSON",
    r"-    self\._killing = False\n\+    self\._killing = None": "only its truth is tested",
    r"-    self\._paused_why = \"\"\n\+    self\._paused_why = None": "found_paused sets it before it is read",
    r"-    self\._waiting(: trio\.CancelScope \| None|) = None\n\+    self\._waiting\1 = \"\"": "only its truth is tested",
    r"-    problem = \"\"\n\+    problem = None": "only its truth is tested",
    r"usedforsecurity=": "matters only on a host in FIPS mode",
    r"section_of\(machine\.value, None": "neither is one of SECTIONS",
    r"cast\(None, value\)": "it returns the value",
    r"(ensure_ascii|allow_nan)=None": "only its truth is tested",
    r"-( .*)<= MAX_DEPTH:\n\+\1< MAX_DEPTH:": "so few brackets are never too deep",
    r"-        return 0\n\+        return 1\n     depth = ": "neither is too deep",
    r"-( +self\._(?:in_step|repeats_ids) = )False.*\n\+\1None": "only its truth is tested",
    r"-( +self\._(?:until_due|scanned) = ).*0.*\n\+\1.*None": "only its truth is tested before it is set",
    r"-( +self\._(?:until_due|scanned) = ).*0.*\n\+\1.*1": "a search of one byte finds the frame that begins there",
    r"zip\(HEADER_FIELDS, header, ": "both have eleven fields",
    r"\+    return length if (1 <=|0 <) length": "a length of 0 counts as 0 either way",
    r"-    self\._ids\[request\.request_id\] = None": "only its keys are used",
    r"-    chosen = \"\"\n\+    chosen = None": "only its truth is tested",
    r"2\.0 \*\* min\(self\.probes - 1, \d+\)": "the interval has reached its maximum before",
}
"""Survivors that behave as the code does: an expression for their difference, and the reason. They aren't counted."""


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
        "pytest_add_cli_args": ["--hypothesis-profile=mutants", "-p", "no:cacheprovider"],
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


def accepted(difference: str) -> str:
    """Why a survivor is accepted; "" if it is not."""
    return next((why for pattern, why in ACCEPTED.items() if re.search(pattern, difference)), "")


def run(name: str) -> bool:
    """Mutate a group's code. Returns whether enough mutants were killed."""
    copied(GROUPS[name])
    mutmut("run", "--max-children", str(len(os.sched_getaffinity(0))))
    found = dict(re.findall(r"^\s+(\S+): (.+)$", mutmut("results", "--all", "true"), re.MULTILINE))
    survived = {mutant: mutmut("show", mutant) for mutant, what in found.items() if what in {"survived", "no tests"}}
    excused = {mutant: accepted(shown) for mutant, shown in survived.items() if accepted(shown)}
    left = {m: shown for m, shown in survived.items() if m not in excused and not is_only_words(shown)}
    counted = len(found) - len(survived) + len(left)
    for mutant, why in excused.items():
        print(f"{mutant}: accepted, {why}")
    for mutant, shown in left.items():
        print(f"{mutant}: {found[mutant]}\n{shown}")
    share = 100 * (counted - len(left)) / max(counted, 1)
    print(f"{name}: {counted} mutants, {share:.1f} % killed, {len(excused)} more accepted")
    return share >= WANTED


def main(names: list[str]) -> int:
    if wrong := set(names) - set(GROUPS):
        print(f"no group {', '.join(sorted(wrong))}; there are {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    results = [run(name) for name in names or GROUPS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""TAB in real shells, with the files that a wheel installs and with the printed script."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.terminal import Shell
from tests.forked import forking
from tests.serving import ENVIRONMENT, TIMEOUT, Serving, line_from, run_vhostcomm, started

ROOT = Path(__file__).parents[2]
COMPLETIONS = ROOT / "completions"
PROGRAMS = {"vhostcomm": "", "vdsm_run": " --program vdsm_run"}
"""The programs, with the flag of `vhostcomm completion` for each."""

LINES = [
    ("vhostcomm ser", "vhostcomm serve"),
    ("vhostcomm capture red", "vhostcomm capture redact"),
    ("vhostcomm serve --allow", "vhostcomm serve --allow-dangerous"),
    ("vhostcomm serve --log-level w", "vhostcomm serve --log-level warning"),
    ("vhostcomm run --restart on", "vhostcomm run --restart on-failure"),
    ("vhostcomm run --boot syno", "vhostcomm run --boot synoboot.img"),
    ("vhostcomm serve --config syno", "vhostcomm serve --config synoboot.img"),
    ("vhostcomm completion z", "vhostcomm completion zsh"),
    ("vhostcomm info att", "vhostcomm info attic"),
    ("vhostcomm call attic get_up", "vhostcomm call attic get_uptime"),
    ("vdsm_run --boot syno", "vdsm_run --boot synoboot.img"),
    ("vdsm_run --restart on", "vdsm_run --restart on-failure"),
    ("vhostcomm info nobo", "vhostcomm info nobo"),
]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment with vhostcomm in PATH, and a daemon that serves `attic`.

    `vhostcomm completion` needs two seconds and always prints the same, so its first output is reused.
    """
    folder = tmp_path_factory.mktemp("bin")
    for name in PROGRAMS:
        forked = forking(Path(sys.executable).with_name(name), ENVIRONMENT)
        (folder / name).write_text(_REPEATING.format(program=forked, printed=folder))
        (folder / name).chmod(0o755)
    with Serving("--sock", folder / "attic", "--control", folder / "control"):
        yield ENVIRONMENT | {"PATH": f"{folder}:/usr/bin:/bin", "VHOSTCOMM_CONTROL": str(folder / "control")}


_REPEATING = """\
#!/bin/sh
[ "$1" = completion ] || exec {program} "$@"
printed="{printed}/$*"
[ -e "$printed" ] || {{ {program} "$@" >"$printed.new" && mv "$printed.new" "$printed"; }} || exit
cat "$printed"
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "synoboot.img").touch()
    return tmp_path


LOADED = [LINES[0], LINES[8], LINES[11]]
"""A verb, a guest and vdsm_run: enough to test another way to load the same script."""


def assert_completed(shell: Shell, lines: list[tuple[str, str]]) -> None:
    with shell:
        assert [shell.complete(line).rstrip() for line, _ in lines] == [wanted for _, wanted in lines]


@pytest.mark.slow
@pytest.mark.needs("/usr/share/bash-completion/bash_completion")
def test_bash_reads_the_installed_file_at_the_first_tab(here: Path, env: dict[str, str]) -> None:
    folder = here / "share/bash-completion/completions"
    folder.mkdir(parents=True)
    for name in PROGRAMS:
        shutil.copy(COMPLETIONS / name, folder)
    assert_completed(Shell("bash", here, env | {"XDG_DATA_HOME": str(here / "share")}), LINES)


@pytest.mark.slow
@pytest.mark.needs("/usr/share/bash-completion/bash_completion")
def test_bash_with_the_script_in_its_rc(here: Path, env: dict[str, str]) -> None:
    assert_completed(Shell("bash", here, env, after=sourced("bash")), LOADED)


@pytest.mark.slow
@pytest.mark.needs("zsh")
def test_zsh_reads_the_installed_file_at_the_first_tab(here: Path, env: dict[str, str]) -> None:
    assert_completed(Shell("zsh", here, env, setup=f"fpath=({COMPLETIONS} $fpath)"), LINES)


@pytest.mark.slow
@pytest.mark.needs("zsh")
def test_zsh_with_the_script_in_its_rc(here: Path, env: dict[str, str]) -> None:
    assert_completed(Shell("zsh", here, env, after=sourced("zsh")), LOADED)


@pytest.mark.slow
@pytest.mark.needs("zsh")
def test_zsh_with_the_script_in_its_fpath(here: Path, env: dict[str, str]) -> None:
    for name in PROGRAMS:
        (here / f"_{name}").write_text(printed("zsh", name, env))
    assert_completed(Shell("zsh", here, env, setup=f"fpath=({here} $fpath)"), LOADED)


@pytest.mark.slow
@pytest.mark.needs("fish")
@pytest.mark.parametrize(
    ("setup", "lines"),
    [
        ([f"set -g fish_complete_path {COMPLETIONS}"], LINES),
        ([f"vhostcomm completion fish{more} | source" for more in PROGRAMS.values()], LOADED),
    ],
    ids=["installed", "config.fish"],
)
def test_fish(here: Path, env: dict[str, str], setup: list[str], lines: list[tuple[str, str]]) -> None:
    found = [each[0].split("\t")[0] if each else "" for each in fish(here, env, setup, [line for line, _ in lines])]
    assert found == [wanted.split()[-1] if wanted != line else "" for line, wanted in lines]


@pytest.mark.needs("fish")
def test_fish_offers_no_files_where_a_verb_is_due(here: Path, env: dict[str, str]) -> None:
    (here / "a-file").touch()
    verbs = ["vhostcomm ", "vhostcomm snippet ", "vhostcomm capture ", "vhostcomm disk "]
    lines = [*verbs, "vhostcomm capture show ", "vhostcomm snippet qemu --config "]
    offers = fish(here, env, [f"set -g fish_complete_path {COMPLETIONS}"], lines)
    found = [{word.split("\t")[0] for word in each} for each in offers]
    for offered, verb in zip(found, ("serve", "qemu", "show", "inspect"), strict=False):
        assert verb in offered
        assert "a-file" not in offered
    assert "a-file" in found[-2]
    assert "a-file" in found[-1]


@pytest.mark.needs("fish")
def test_candidates_have_descriptions(here: Path, env: dict[str, str]) -> None:
    lines = ["vhostcomm the", "vhostcomm tha"]
    assert fish(here, env, [f"set -g fish_complete_path {COMPLETIONS}"], lines) == [
        [],
        ["thaw\tThaw a guest's file systems."],
    ]


def fish(here: Path, env: dict[str, str], setup: list[str], lines: list[str]) -> list[list[str]]:
    """Return fish's candidates for each line. Each line has its own timeout, because a busy machine is slow."""
    script = "; echo =; ".join([*setup, *(f"complete -C '{line}'" for line in lines), ""])
    with started(
        ["fish", "--no-config", "-c", script],
        cwd=here,
        env=env | {"HOME": str(here)},
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as shell:
        printed = [list(iter(lambda: line_from(shell), "=")) for _ in (*setup, *lines)]
        assert shell.wait(TIMEOUT) == 0
    assert not any(printed[: len(setup)])
    return printed[len(setup) :]


def test_without_a_daemon_completion_is_silent(tmp_path: Path) -> None:
    done = run_vhostcomm("__complete", "info", "--control", tmp_path / "none", "")
    assert (done.returncode, done.stderr) == (0, "")
    assert "attic" not in done.stdout


def test_call_is_offered_commands_behind_a_guest_only_once(env: dict[str, str]) -> None:
    def offered(*words: str) -> list[str]:
        return run_vhostcomm("__complete", "call", *words, "", env=env).stdout.splitlines()

    assert {"attic", "get_ip", "poweroff"} <= set(offered())
    assert "get_ip" in offered("attic")
    assert "attic" not in offered("attic")
    assert "get_ip" not in offered("get_uptime")


def test_no_such_shell() -> None:
    done = run_vhostcomm("completion", "tcsh")
    assert done.returncode == 2
    assert "bash" in done.stderr


def sourced(shell: str) -> str:
    return "\n".join(f"source <(vhostcomm completion {shell}{more})" for more in PROGRAMS.values())


def printed(shell: str, program: str, env: dict[str, str]) -> str:
    command = ["vhostcomm", "completion", shell, *PROGRAMS[program].split()]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=TIMEOUT).stdout

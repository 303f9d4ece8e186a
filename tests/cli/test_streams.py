"""Standard output that is full, closed, or limited to ASCII."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.captures.make_golden import FOLDER
from tests.serving import ENVIRONMENT, TIMEOUT, VHOSTCOMM

SHORT = str(FOLDER / "graceful-stop.jsonl")
LONG = str(FOLDER / "damage.jsonl")


def shell(words: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which "$@" is vhostcomm and `arguments`."""
    command = ["bash", "-o", "pipefail", "-c", words, "bash", *VHOSTCOMM, *arguments]
    return subprocess.run(command, env=ENVIRONMENT | more, capture_output=True, text=True, timeout=TIMEOUT, check=False)


@pytest.mark.parametrize(
    "words",
    [
        ["capture", "redact", SHORT],
        ["capture", "redact", LONG],
        ["capture", "show", SHORT],
        ["config", "show"],
        ["config", "show", "--json"],
        ["--version"],
        ["serve", "--help"],
    ],
    ids=" ".join,
)
@pytest.mark.slow
def test_a_full_device_is_one_message(words: list[str]) -> None:
    ended = shell('"$@" > /dev/full', *words)
    assert ended.returncode == 1
    assert ended.stderr == (
        "vhostcomm: standard output: No space left on device; make room there, or choose another place\n"
    )


def test_another_error_is_reported_if_output_fails_too() -> None:
    ended = shell('"$@" > /dev/full', "capture", "diff", SHORT, "/nowhere")
    assert (ended.returncode, ended.stderr) == (1, "vhostcomm: /nowhere: No such file or directory\n")


def test_a_closed_pipe_is_no_error() -> None:
    ended = shell('"$@" | head -c 10', "capture", "redact", LONG)
    assert (ended.returncode, ended.stderr, len(ended.stdout)) == (0, "", 10)


def test_letters_outside_ascii_are_escaped() -> None:
    shown = shell('"$@"', "capture", "show", SHORT, PYTHONIOENCODING="ascii")
    assert shown.returncode == 0, shown.stderr
    assert r"guest \u2192 asks 5 GUEST_SERIAL" in shown.stdout


def test_closed_streams_cause_status_1(tmp_path: Path) -> None:
    """The exit status reports the lost output, but the file is created."""
    for closed in (">&-", "<&- >&- 2>&-"):
        ended = shell(f'"$@" {closed}', "config", "init", str(tmp_path / f"{len(closed)}.toml"))
        assert (ended.returncode, ended.stdout) == (1, "")
    assert len(list(tmp_path.iterdir())) == 2


def test_help_of_redact_names_its_changes() -> None:
    help_text = " ".join(shell('"$@"', "capture", "redact", "--help").stdout.split())
    for what in ("Request ids", "dangerous command", "In binary data"):
        assert what in help_text

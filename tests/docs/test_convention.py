"""The convention for commands in the documentation: violations and wrong output are found."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.commands import check, wrong_in_prose
from tests.docs.pages import ROOT, Command, PageError, all_pages, blocks, inline_code, matches, pages
from tests.docs.shell import Shell
from tests.serving import until


def test_commands_and_their_output() -> None:
    text = "<!-- status: 1 -->\n<!-- guest: /run/it -->\n```console\n$ a \\\n    -b\none\n…\n$ c &\n```\n"
    (block,) = blocks(text, "p")
    assert block.commands == (Command("a \\\n    -b", "one\n…"), Command("c &", ""))
    assert block.marks == {"status": "1", "guest": "/run/it"}
    assert block.where == "p:3"


def test_a_comment_for_people() -> None:
    assert list(blocks("<!-- made by a program: edit it there -->\n\n# A page\n", "p")) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a\n\n    vhostcomm guests\n", "an indented block"),
        ("```\nvhostcomm guests\n```\n", "a block of no kind"),
        ("```sh\nvhostcomm guests\n```\n", "a block of kind 'sh'"),
        ("```bash\n$ ls\n```\n", "a block of kind 'bash'"),
        ("```text\nvhostcomm guests\n```\n", "looks like a command"),
        ("```text\n$ sudo make test\n```\n", "looks like a command"),
        ("```ini\n./vdsm_run.py --boot x\n```\n", "looks like a command"),
        ("```console\nvhostcomm guests\n```\n", "stands before any command"),
        ("```python\nprint()\n```\n", "Python without"),
        ("```toml\na = \n```\n", "no toml"),
        ("```json\n{\n```\n", "no json"),
        ("<!-- skip -->\n```console\n$ ls\n```\n", "skip: a comment before a block is one of"),
        ("<!-- not run: it can't -->\n\nprose\n\n```console\n$ ls\n```\n", "no block right behind it"),
        ("<!-- status: 1 -->\n", "no block right behind it"),
        ("- a list\n\n  ```\n  vhostcomm guests\n  ```\n", "a block of no kind"),
    ],
)
def test_breaches_of_the_convention_are_found(text: str, why: str) -> None:
    with pytest.raises(PageError, match=re.escape(why)):
        list(blocks(text, "p"))


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a", "a\n", True),
        ("a", "a\nb\n", False),
        ("a\n…", "a\n", True),
        ("a\n…", "a\nb\nc\n", True),
        ("…\nc", "a\nb\nc\n", True),
        ("…\nc", "a\nb\n", False),
        ("a … c", "a b c\n", True),
        ("a … c", "a b d\n", False),
        ("a  b", "a     b   \n", True),
        ("a  b", "a b\n", False),
        ("a b", "a  b\n", False),
        ("[x]", "x\n", False),
    ],
)
def test_output_matches_its_pattern(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) is same


@pytest.mark.parametrize(
    ("command", "status", "why"),
    [
        (Command("echo a", "b"), 0, "and the page says"),
        (Command("false", ""), 0, "ended with 1"),
        (Command("true", ""), 1, "ended with 0"),
        (Command("no-such-program", ""), 0, "ended with 127"),
        (Command("vhostcomm serve --sock /run/guests/none/x &", ""), 0, "the sockets' lock can't be made"),
        (Command("vhostcomm serve --sock nas=/run/vhostcomm/nas 2> serve.log &", ""), 0, "amid what the page shows"),
    ],
)
@pytest.mark.slow
def test_wrong_output_or_status_of_a_page_is_found(tmp_path: Path, command: Command, status: int, why: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(why)), Shell(tmp_path) as shell:
        shell.assert_prints(command, status, "p:1")


def test_files_that_a_page_leaves_behind_are_found(tmp_path: Path) -> None:
    with Shell(tmp_path) as shell:
        with shell.providing():
            (tmp_path / "system.img").touch()
        for text in "touch serve.log run/.secret", "mkdir nas", "touch nas/data.img", "rm serve.log":
            shell.assert_prints(Command(text, ""), 0, "p:1")
        assert shell.left_behind() == ["nas/data.img", "run/.secret"]


def test_daemon_that_ends_with_an_error_is_found(tmp_path: Path) -> None:
    def page() -> None:
        with Shell(tmp_path) as shell:
            shell.assert_prints(Command("bash -c 'trap \"exit 3\" TERM; echo there; sleep 100 & wait' &", ""), 0, "p:1")
            until(lambda: "there" in shell.background(), "the trap")

    with pytest.raises(AssertionError, match="ended badly"):
        page()


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("vhostcomm serve --sock nas=/x --record y", True),
        ("sudo vhostcomm serve --sockets x", False),
        ("vhostcomm sevre", False),
        ("./vdsm_run.py --boot x --no-such y", False),
        ("qemu-host -addr=unix:/x -bogus 1", False),
        ("make test", True),
        ("make no-such-target", False),
        ("tests/guest/build.sh --print-paths", True),
        ("tests/guest/no-such.sh", False),
        ("systemctl enable --now vhostcomm.service", True),
        ("systemctl edit vhostcomm-guest@nas.socket", True),
        ("systemctl start vhostcomm@nas.service", False),
        ("systemctl start vhostcomm-guests@nas.socket", False),
        ("frobnicate", False),
    ],
)
def test_commands_that_are_not_run(text: str, right: bool) -> None:
    if right:
        check(text)
        return
    with pytest.raises(AssertionError):
        check(text)


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("vhostcomm capture redact", False),
        ("vhostcomm capture reduct", True),
        ("vhostcomm serve --bogus", True),
        ("vhostcomm frob nas", True),
        ("--grace", False),
        ("--grace=90", False),
        ("--no-such-flag", True),
        ("vhostcomm.capture", False),
    ],
)
def test_verbs_and_flags_in_prose(code: str, wrong: bool) -> None:
    assert bool(wrong_in_prose(code)) is wrong


@pytest.mark.parametrize("page", all_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target


def test_named_tests_exist() -> None:
    names = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = {code for page in pages() for _, code in inline_code(page.read_text()) if re.fullmatch(r"test_\w+", code)}
    assert named
    assert named <= names


def test_only_contributing_names_tests() -> None:
    """Pages for users promise behaviour; the page on contributing maps each promise to its tests."""
    found = {
        f"{page.relative_to(ROOT)}:{line}": code
        for page in pages()
        for line, code in inline_code(page.read_text())
        if page.name != "contributing.md" and re.search(r"\btest_\w+", code)
    }
    assert not found


def test_the_table_of_packages_is_complete() -> None:
    """A path in the page on contributing is relative to the top, or to the folder of the previous path."""
    text = (ROOT / "docs/contributing.md").read_text().split("## The packages")[1].split("## ")[0]
    named = [code for _, code in inline_code(text) if "." in code or "/" in code]
    beside = ROOT
    for path in named:
        at = beside / path if (beside / path).exists() else ROOT / path
        assert at.exists(), path
        beside = at if at.is_dir() else at.parent


def test_the_table_of_packages_has_the_order_of_the_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    level = {name: place for place, layer in enumerate(layers) for name in layer.split(" | ")}
    text = (ROOT / "docs/contributing.md").read_text()
    listed = [
        path.removesuffix(".py").rstrip("/") for path in re.findall(r"^\| `vhostcomm/(\S+)` \|", text, re.MULTILINE)
    ]
    assert [level[name] for name in listed] == sorted(level[name] for name in listed)
    assert {*listed} == level.keys() - {"__main__"}

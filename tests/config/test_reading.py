"""Reading a configuration from regular files, the environment and flags, and the errors."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.config.test_load import config
from vhostcomm.config import files, models, reading
from vhostcomm.config.collecting import Mistakes
from vhostcomm.errors import ConfigError

T = TypeVar("T")


@contextmanager
def hidden(folder: Path) -> Iterator[None]:
    """Take away this process's access to a folder."""
    user = os.geteuid()
    folder.chmod(0)
    os.seteuid(user or 65534)  # permissions do not stop root
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    path = config(tmp_path, "[host]\n")
    assert reading.content(path) == b"[host]\n"
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    for other, kind in (
        (tmp_path, "a directory"),
        (tmp_path / "pipe", "a pipe"),
        (tmp_path / "socket", "a socket"),
        (Path("/dev/null"), "a device"),
    ):
        with pytest.raises(ConfigError) as caught:
            reading.content(other)
        what = "but the configuration must be a regular file; give the path of one"
        assert str(caught.value) == f"{other}: {kind}, {what}"


def test_a_file_larger_than_a_configuration(tmp_path: Path) -> None:
    path = config(tmp_path, "")
    os.truncate(path, 16 << 20)
    assert len(reading.content(path)) == 16 << 20
    os.truncate(path, (16 << 20) + 1)
    with pytest.raises(ConfigError) as caught:
        reading.content(path)
    what = "16777217 bytes, but a configuration has at most 16777216; is it the right file?"
    assert str(caught.value) == f"{path}: {what}"


def test_a_file_that_is_replaced_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pipe = config(tmp_path, ""), tmp_path / "pipe"
    os.mkfifo(pipe)
    opened = os.open
    monkeypatch.setattr(os, "open", lambda _, flags: opened(pipe, flags))
    with pytest.raises(ConfigError) as caught:
        reading.content(path)
    assert str(caught.value).startswith(f"{path}: a pipe, but the configuration must be a regular file")


def test_reading_does_not_block_and_its_descriptor_is_not_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, given, opened = config(tmp_path, ""), [], os.open

    def kept(path: Path, flags: int) -> int:
        given.append(flags)
        return opened(path, flags)

    monkeypatch.setattr(os, "open", kept)
    assert reading.read_file(path) == {}
    assert given == [os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOENT, "; create one: vhostcomm config init {path}"),
        (errno.EACCES, "; uid {uid} must be able to read it: chmod a+r {path}, and keep secrets in the environment"),
        (errno.EIO, ""),
    ],
)
def test_reasons_for_an_unreadable_file(tmp_path: Path, number: int, remedy: str) -> None:
    path = tmp_path / "away.toml"
    error = reading.read_error(path, OSError(number, os.strerror(number)))
    assert str(error) == f"{path}: {os.strerror(number)}{remedy.format(path=path, uid=os.geteuid())}"


def test_the_directory_of_a_file_that_is_created_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "no one" / "away.toml"
    error = str(reading.read_error(path, FileNotFoundError(errno.ENOENT, "No such file or directory")))
    assert error.endswith(f"; create one: mkdir -p '{path.parent}' && vhostcomm config init '{path}'")


def test_the_first_directory_without_access_is_named(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    path = config(tmp_path / "a" / "b", "")
    with hidden(tmp_path / "a"), pytest.raises(ConfigError) as caught:
        reading.read_file(path)
    # A parent of pytest's directories may be closed too.
    assert re.search(r"Permission denied; uid \d+ must be able to read it: chmod a\+x \S+, and keep", str(caught.value))
    assert str(path) not in str(caught.value).partition("chmod")[2]


def test_a_folder_is_also_searched(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    error = str(reading.read_error(tmp_path, PermissionError(errno.EACCES, "Permission denied")))
    assert error.endswith(f": chmod a+rx {tmp_path}, and keep secrets in the environment")


@pytest.mark.skipif(os.geteuid() != 0, reason="no root: only root gives a file to a group without a name")
def test_a_file_of_a_group_without_a_name(tmp_path: Path) -> None:
    path = config(tmp_path, "")
    os.chown(path, -1, 4_242_424)
    path.chmod(0o640)
    error = str(reading.read_error(path, PermissionError(errno.EACCES, "Permission denied")))
    assert error.endswith(f": chmod a+r {path}, and keep secrets in the environment")


def test_values_in_errors_are_short() -> None:
    assert reading.quoted("x" * 79) == f"'{'x' * 79}'"
    assert reading.quoted("x" * 80) == f"'{'x' * 80}'…"
    assert reading.quoted("x" * 81) == f"'{'x' * 80}'…"
    assert reading.quoted("é\n") == r"'\xe9\n'"
    assert reading.quoted(10**5000) == "too long to be shown"


def test_a_section_is_a_table() -> None:
    assert reading.table_of({"a": 1}, "host", "file") == {"a": 1}
    with pytest.raises(ConfigError) as caught:
        reading.table_of([], "host", "file")
    assert str(caught.value) == "file: host is []; expected a section; for example: [host]"


def read(reader: Callable[[Any, Mistakes], T], given: object) -> T:
    found = Mistakes()
    made = reader(given, found)
    found.check()
    return made


def test_settings_of_the_environment_and_of_flags() -> None:
    environment = {
        "VHOSTCOMM_VCPUS": "2",
        "VHOSTCOMM_HOST_MODEL": "box",
        "VHOSTCOMM_HOOK_GUEST": "nas",
        "VHOSTCOMM_QEMU": "/usr/bin/qemu",
        "HOME": "/root",
    }
    assert read(reading.from_environment, environment) == {
        ("guest", "vcpus"): models.Value(2, "environment VHOSTCOMM_VCPUS"),
        ("host", "model"): models.Value("box", "environment VHOSTCOMM_HOST_MODEL"),
    }
    with pytest.raises(ConfigError, match=r"^the environment's VHOSTCOMM_VCPUS is 'x': not a .*; for example: 2$"):
        read(reading.from_environment, {"HOME": "/", "VHOSTCOMM_VCPUS": "x"})
    with pytest.raises(
        ConfigError,
        match=r"^the environment's VHOSTCOMM_CPUS: unknown; did you mean VHOSTCOMM_VCPUS\?$",
    ):
        read(reading.from_environment, {"VHOSTCOMM_CPUS": ""})
    with pytest.raises(
        ConfigError,
        match=r"^the environment's VHOSTCOMM_STATE: unknown; `vhostcomm serve --help` lists the variables$",
    ):
        read(reading.from_environment, {"VHOSTCOMM_STATE": ""})
    with pytest.raises(ConfigError, match=r"did you mean VHOSTCOMM_CLUSTER_HOST\?$"):
        read(reading.from_environment, {"VHOSTCOMM_CLUSTER_HOTS": ""})
    assert read(reading.from_flags, {"vcpus": "2", "host-model": None, "host-fix": 0, "other": "x"}) == {
        ("guest", "vcpus"): models.Value(2, "--vcpus"),
        ("host", "fix"): models.Value(0, "--host-fix"),
    }
    with pytest.raises(ConfigError, match=r"^--vcpus is 'x': not a whole number; for example: 2$"):
        read(reading.from_flags, {"vcpus": "x"})


def test_examples_in_errors_are_toml_and_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/x")
    found = Mistakes()
    assert reading.section_of({"control": 1}, "serve", "file", found) == {}
    with pytest.raises(ConfigError) as caught:
        found.check()
    assert str(caught.value) == (
        'file: serve.control is 1: it must be text in quotes; for example: control = "/run/x/control.sock"'
    )
    with pytest.raises(ConfigError, match=r"for example: /run/x/control\.sock$"):
        read(reading.from_flags, {"control": ""})
    made = reading.section_of({"watch": 1, "frame_rate": 5}, "serve", "file", Mistakes(), extra=("watch",))
    assert made == {
        "watch": models.Value(1, "file: serve.watch"),
        "frame_rate": models.Value(5, "file: serve.frame_rate"),
    }
    found = Mistakes()
    made = reading.section_of({"bot": 1, "mac": "020000000000"}, "machine", "file", found, extra=("z",), where="x.y")
    assert made == {"mac": models.Value("02:00:00:00:00:00", "file: x.y.mac")}
    with pytest.raises(
        ConfigError, match=r"^file: x\.y\.bot: unknown; did you mean boot\? known: boot, system, .*forward, z$"
    ):
        found.check()


def test_fingerprint_depends_on_names_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text("a")
    first = files.fingerprint([one])
    assert first == files.fingerprint([one])
    one.rename(two)
    second = files.fingerprint([two])
    assert len({first, second, files.fingerprint([two, two])}) == 3
    two.write_text("b")
    assert files.fingerprint([two]) != second
    assert files.fingerprint([one]) == f"{one}: No such file or directory; create one: vhostcomm config init {one}"
    assert files.fingerprint([tmp_path]) == files.fingerprint([two])


def test_a_folder_without_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        files.list_files([tmp_path])
    assert str(caught.value) == (
        f"{tmp_path}: a directory without a *.toml file; check that its file system is mounted, "
        f"or create one: vhostcomm config init {tmp_path}/vhostcomm.toml"
    )


def test_files_and_folders_in_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    for name in ("b.toml", "a.toml", "c.txt", ".d.toml"):
        (folder / name).touch()
    alone = tmp_path / "z.toml"
    assert files.list_files([alone, folder, alone]) == [alone, folder / "a.toml", folder / "b.toml", alone]


def test_a_file_or_folder_that_this_user_may_not_see(tmp_path: Path) -> None:
    path = tmp_path / "hidden" / "c.toml"
    path.parent.mkdir()
    path.touch()
    with hidden(path.parent), pytest.raises(ConfigError) as caught:
        files.list_files([path])
    why = f"{path}: Permission denied; uid {os.geteuid() or 65534} must be able to read it: chmod a+x "
    assert str(caught.value).startswith(why)
    with hidden(path.parent):
        assert files.fingerprint([path]) == str(caught.value)

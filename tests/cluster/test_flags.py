"""The flags of a cluster, and mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving import ENVIRONMENT, run_vhostcomm
from vhostcomm.cluster.address import Access, parse
from vhostcomm.cluster.lock import Holder, parse_holder
from vhostcomm.cluster.tree import Tree
from vhostcomm.cluster.tree_file import TreeFile, TreeFileError, state_directory


def test_addresses_are_parsed() -> None:
    assert parse("etcd://a:1,b,[::1]:3") == (("a:1", "b:2379", "[::1]:3"), "/vhostcomm/v1/")
    assert parse("etcd://a/home/v1") == (("a:2379",), "/home/v1/")
    assert parse("etcd://a/") == (("a:2379",), "/vhostcomm/v1/")
    assert Access(("a:1",)).urls == ("http://a:1",)
    assert Access(("a:1", "b:2"), ca="ca.pem").urls == ("https://a:1", "https://b:2")
    assert "secret" not in repr(Access(("a:1",), user="u", password="secret"))


@pytest.mark.parametrize(
    "text", ["http://a", "etcd://", "etcd://a,", "etcd://a:0", "etcd://a:70000", "etcd://a/../b c", "etcd://a@b"]
)
def test_invalid_addresses_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|does not begin with"):
        parse(text)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--cluster", "host1"], "--cluster: 'host1' does not begin with etcd://; for example: etcd://host1:2379"),
        (["--cluster", "etcd://a", "--cluster-cert", "c.pem"], "--cluster-cert needs --cluster-ca"),
        (["--cluster", "etcd://a", "--cluster-key", "c.pem"], "--cluster-key needs --cluster-cert"),
        (
            ["--cluster", "etcd://a", "--cluster-user", "u"],
            "--cluster-user and VHOSTCOMM_CLUSTER_PASSWORD in the environment",
        ),
        (
            ["--cluster", "etcd://a", "--cluster-ca", "no.pem"],
            "--cluster: no.pem: the certificate can't be read: No such file",
        ),
        (["--cluster-ca", "x"], "--cluster-ca has no effect without --cluster"),
        (["--cluster-host", "x"], "--cluster-host has no effect without --cluster"),
        (["--cluster", "etcd://a", "--cluster-host", "a/b"], "--cluster-host: a host's name has"),
    ],
)
def test_wrong_flags_are_rejected(words: list[str], why: str, tmp_path: Path) -> None:
    for verb in "serve", "run":
        done = run_vhostcomm(verb, *words, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(f"vhostcomm: {why}")


@pytest.mark.parametrize(
    "value", [b"mine", b"[]", b'{"host": "a/b"}', b'{"since": 5}', b'{"host": "a", "since": "now"}']
)
def test_a_lock_with_an_invalid_value_is_held(value: bytes) -> None:
    assert parse_holder(value) == Holder("an unknown host")


def test_values_of_locks_are_parsed() -> None:
    assert parse_holder(b'{"host": "a", "pid": 7, "since": 5}') == Holder("a", 7, 5.0)
    assert parse_holder(b'{"host": "a", "pid": true, "mood": "fine"}') == Holder("a")


def test_state_directory_depends_on_the_environment_and_the_user() -> None:
    assert state_directory({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}) == Path("/var/lib/a")
    assert state_directory({}, 0) == Path("/var/lib/vhostcomm")
    assert state_directory({"XDG_STATE_HOME": "/s"}, 1000) == Path("/s/vhostcomm")
    assert state_directory({"HOME": "/home/u"}, 1000) == Path("/home/u/.local/state/vhostcomm")


def test_a_tree_that_can_not_be_kept_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = TreeFile("/p/", tmp_path / "file" / "cluster.tree")
    assert kept.read().values == {}
    with pytest.raises(TreeFileError, match=r"cluster\.tree: (Not a directory|File exists)"):
        kept.write(Tree())
    kept = TreeFile("/p/", tmp_path / "new" / "cluster.tree")
    kept.write(Tree({"guests/nas": b"{}"}, 4))
    assert [each.name for each in kept.path.parent.iterdir()] == ["cluster.tree"]
    assert (kept.read().values, kept.read().revision) == ({"guests/nas": b"{}"}, 4)
    with pytest.raises(TreeFileError, match=r"it belongs to the prefix /p/, not /q/; delete the file"):
        TreeFile("/q/", kept.path).read()
    with pytest.raises(TreeFileError, match=r"new: a directory"):
        TreeFile("/p/", kept.path.parent).read()


def test_the_variables_of_a_cluster_are_no_settings(tmp_path: Path) -> None:
    variables = {"VHOSTCOMM_CLUSTER": "etcd://a", "VHOSTCOMM_CLUSTER_USER": "u", "VHOSTCOMM_CLUSTER_PASSWORD": "p"}
    assert run_vhostcomm("config", "show", env=ENVIRONMENT | variables, cwd=tmp_path).returncode == 0
    wrong = run_vhostcomm("config", "show", env=ENVIRONMENT | {"VHOSTCOMM_CLUSTER_UUDI": "x"}, cwd=tmp_path)
    assert "VHOSTCOMM_CLUSTER_UUDI: unknown; did you mean VHOSTCOMM_CLUSTER_UUID?" in wrong.stderr

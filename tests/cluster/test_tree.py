"""The common configuration: values of the tree become settings, and a host's files override them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vhostcomm.cluster.tree import Tree, settings_of
from vhostcomm.cluster.tree_file import TreeFile, TreeFileError
from vhostcomm.config.load import check, load
from vhostcomm.config.models import Config
from vhostcomm.errors import ConfigError

UUID = "8b532c79-f207-3510-5067-79268f097d46"


def tree_of(**keys: Any) -> Tree:
    """A tree; guests are given as guests_NAME."""
    return Tree({key.replace("_", "/"): json.dumps(value).encode() for key, value in keys.items()}, 5)


def loaded(tree: Tree, file: str, tmp_path: Path) -> Config:
    path = tmp_path / "own.toml"
    path.write_text(file)
    return load(path, environment={"XDG_RUNTIME_DIR": str(tmp_path)}, under=settings_of(tree))


def test_files_override_the_tree_key_by_key(tmp_path: Path) -> None:
    tree = tree_of(
        cluster={"host": {"cluster_uuid": UUID, "serial": "AAAAAAAAAAAAA"}, "guest": {"vcpus": 2, "cpu": "a,b,c"}},
        guests_nas={"serial": "1234ABC567890", "update_deadline": "never"},
        guests_attic={"serial": "1234ABC567891", "vcpus": 4},
    )
    config = loaded(tree, '[host]\nserial = "BBBBBBBBBBBBB"\n[guest]\nvcpus = 3\n[guests.own]\n', tmp_path)
    assert (config.host.cluster_uuid, config.host.serial) == (UUID, "BBBBBBBBBBBBB")
    found = {each.name: (each.identity.serial, each.identity.vcpus, each.identity.cpu) for each in config.guests}
    assert found == {
        "nas": ("1234ABC567890", 3, "a,b,c"),
        "attic": ("1234ABC567891", 4, "a,b,c"),
        "own": ("0000000000000", 3, "a,b,c"),
    }
    nas = config.guests[0]
    assert nas.sources["serial"] == "etcd: guests/nas.serial"
    assert str(nas.address).endswith("/vhostcomm/nas")
    assert config.warnings == ()


def test_another_serial_number_in_the_file_is_used_with_a_warning(tmp_path: Path) -> None:
    config = loaded(
        tree_of(guests_nas={"serial": "1234ABC567890"}), '[guests.nas]\nserial = "1234ABC567899"\n', tmp_path
    )
    assert config.guests[0].identity.serial == "1234ABC567899"
    [warning] = config.warnings
    assert warning == (
        f"{tmp_path}/own.toml: guests.nas.serial is 1234ABC567899, but etcd: guests/nas.serial is "
        "1234ABC567890: this host uses its own; remove one"
    )
    same = loaded(tree_of(guests_nas={"serial": "1234abc567890"}), '[guests.nas]\nserial = "1234ABC567890"\n', tmp_path)
    assert same.warnings == ()


def test_a_host_of_a_cluster_without_guests_is_valid(tmp_path: Path) -> None:
    check(loaded(Tree(), "", tmp_path))
    with pytest.raises(ConfigError, match="no guest to serve"):
        check(load(tmp_path / "own.toml"))


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("guests/nas", b'{"serail": "1"}', "etcd: guests/nas.serail: unknown; did you mean serial?"),
        ("guests/nas", b'{"serial": "1"}', "etcd: guests/nas.serial is '1': a serial number has 13"),
        ("guests/nas", b'{"sock": "/x"}', "etcd: guests/nas: sock is each host's own; put it into the host's file"),
        ("guests/nas", b'{"machine": {}}', "etcd: guests/nas: machine is each host's own"),
        ("guests/nas", b"nas", "etcd: guests/nas: it is not JSON; for example:"),
        ("guests/nas", b"\xff\xfe{\x00}\x00", "etcd: guests/nas: it is not JSON"),
        ("guests/nas", b"5", "etcd: guests/nas: it is not a JSON object"),
        (
            "guests/nas",
            b'"' + b"x" * (1 << 20) + b'"',
            "etcd: guests/nas: 1048578 bytes, but a value has at most 65536",
        ),
        ("guests/.x", b"{}", "etcd: guests/.x: a name has"),
        ("guests/a/b", b"{}", "etcd: guests/a/b: a name has"),
        ("guest/a", b"{}", "etcd: guest/a: unknown; known: cluster and guests/NAME"),
        ("\x1b[2J", b"{}", "etcd: \\x1b[2J: unknown"),
        ("cluster", b'{"serve": {"control_token": "x"}}', "etcd: cluster: serve is each host's own"),
        ("cluster", b'{"uuid": "x"}', "etcd: cluster: 'uuid': unknown; known: host and guest"),
        ("cluster", b'{"host": 5}', "etcd: cluster.host is 5; expected a section"),
    ],
)
def test_an_invalid_tree_is_rejected(key: str, value: bytes, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings_of(Tree({key: value}, 1))
    assert str(error.value).startswith(why)
    assert len(str(error.value)) < 400


def test_every_mistake_of_a_tree_is_reported() -> None:
    tree = Tree(
        {
            "cluster": b'{"serve": {}, "x": {}, "host": {"serial": "x", "y": 1}}',
            "guests/a": b'{"sock": "/x", "serial": "x", "machine": {}}',
            "guests/b": b"5",
            "other": b"{}",
        },
        1,
    )
    with pytest.raises(ConfigError) as caught:
        settings_of(tree)
    assert [
        each.removeprefix("etcd: ").partition(";")[0].partition(" letters")[0] for each in caught.value.reasons
    ] == [
        "cluster: serve is each host's own",
        "cluster: 'x': unknown",
        "cluster.host.serial is 'x': a serial number has 13",
        "cluster.host.y: unknown",
        "guests/a: sock is each host's own",
        "guests/a: machine is each host's own",
        "guests/a.serial is 'x': a serial number has 13",
        "guests/b: it is not a JSON object",
        "other: unknown",
    ]


def test_a_tree_has_at_most_ten_thousand_guests() -> None:
    values = {f"guests/g{number}": b'{"vcpus": 2}' for number in range(10_000)}
    assert len(settings_of(Tree(values)).guests) == 10_000
    with pytest.raises(ConfigError, match="10001 guests"):
        settings_of(Tree(values | {"guests/more": b"{}"}))
    big = {f"guests/g{number}": b'{"vcpus": 2}' + b" " * 65_000 for number in range(200)}
    with pytest.raises(ConfigError, match="the largest value is that of guests/g"):
        settings_of(Tree(big))


def test_a_tree_is_read_from_its_file_as_it_was_written(tmp_path: Path) -> None:
    tree = tree_of(cluster={"guest": {"cpu": "ä,b,c"}}, guests_nas={})
    kept = TreeFile("/p/", tmp_path / "cluster.tree")
    kept.write(tree)
    read = kept.read()
    assert (read.values, read.revision) == (tree.values, 5)
    data = kept.path.read_bytes()
    with pytest.raises(TreeFileError, match="prefix /p/, not /q/"):
        TreeFile("/q/", kept.path).read()
    for damaged in (b"", b"5", data[:-3], b"{}\n", data.replace(b'"guests/nas"', b"[]")[:-20]):
        kept.path.write_bytes(damaged)
        with pytest.raises(TreeFileError, match="not the record of a tree"):
            kept.read()

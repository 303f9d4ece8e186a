"""The records that hosts publish: written, read, invalid, and in order."""

from __future__ import annotations

import json

import pytest

from vhostcomm.cluster.records import (
    VALUE_MAX,
    HostRecord,
    RecordError,
    ServingRecord,
    Trouble,
    View,
    format_record,
    parse_record,
)
from vhostcomm.control.serialize import guests
from vhostcomm.guest.model import State

READY = ServingRecord("nas", "host1", State.READY, 1650802981.5, "answer", "10.0.2.15", 1650803000.0, 1650802982.0)
HOST = HostRecord("host1", "ssh://root@host1", "0.1.0", 1650800000.0, 1650802982.0)


def test_a_record_is_read_as_it_was_written() -> None:
    assert parse_record("serving/nas/host1", format_record(READY), 7) == READY
    assert parse_record("serving/nas/host1", format_record(READY), 7).revision == 7  # type: ignore[union-attr]
    assert parse_record(HOST.key, format_record(HOST)) == HOST
    thawed = ServingRecord("nas", "host1", State.READY, since=0.0, thawed={"host2": 1650803000.25, "host3": 0.0})
    assert parse_record(thawed.key, format_record(thawed)) == thawed
    assert (READY.key, HOST.key) == ("serving/nas/host1", "hosts/host1")
    assert json.loads(format_record(ServingRecord("nas", "host1", State.CONNECTED, 5.0))) == {
        "state": "connected",
        "since": 5.0,
    }
    assert json.loads(format_record(HostRecord("host1"))) == {}


def test_keys_of_a_newer_version_are_ignored() -> None:
    assert parse_record("hosts/a", b'{"control": "ssh://a", "mood": "fine"}') == HostRecord("a", "ssh://a")


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("hosts/a", b"[]", "hosts/a: it is not a JSON object"),
        ("hosts/a", b"{", "hosts/a: it is not JSON"),
        ("hosts/a", b"\xff", "hosts/a: it is not JSON"),
        ("hosts/a", b'{"control": ' + b"[" * 60000, "hosts/a: it is not JSON"),
        ("hosts/a", b'{"control": 5}', "hosts/a: control is not printable text of at most 512 characters"),
        ("hosts/a", b'{"control": "\\u001b[2J"}', "hosts/a: control is not printable text of at most 512 characters"),
        ("hosts/a", b'{"since": 1e400}', "hosts/a: since is not a time in seconds since 1970"),
        ("hosts/a", b'{"since": NaN}', "hosts/a: since is not a time in seconds since 1970"),
        ("hosts/a", b'{"since": true}', "hosts/a: since is not a time in seconds since 1970"),
        ("hosts/", b"{}", "hosts/: a host's name has"),
        ("hosts/a/b", b"{}", "hosts/a/b: a host's name has"),
        ("hosts/a", b" " * (VALUE_MAX + 1), f"hosts/a: {VALUE_MAX + 1} bytes, but a value has at most {VALUE_MAX}"),
        ("serving/nas/a", b"{}", "serving/nas/a: None is not a valid State"),
        (
            "serving/nas/a",
            b'{"state": "ready", "thawed": [5]}',
            "serving/nas/a: thawed is not an object with at most 64 hosts",
        ),
        (
            "serving/nas/a",
            b'{"state": "ready", "thawed": {"b": "c"}}',
            "serving/nas/a: b is not a time in seconds since 1970",
        ),
        ("serving/nas/a", b'{"state": "ready", "thawed": {"b/c": 5}}', "serving/nas/a: a host's name has"),
        ("serving/nas", b'{"state": "ready"}', "serving/nas: a host's name has"),
        ("serving/.n/a", b'{"state": "ready"}', "serving/.n/a: a name has"),
    ],
)
def test_an_invalid_record_is_rejected(key: str, value: bytes, why: str) -> None:
    with pytest.raises(RecordError) as error:
        parse_record(key, value)
    assert str(error.value).startswith(why)


def test_a_view_follows_the_records() -> None:
    view = View("host1")
    view.replace([READY, HOST])
    assert list(view.serving.values()) == [READY]
    # The end of the lock of a guest `nas` must not remove this record.
    other = ServingRecord("run", "nas", State.READY)
    view.put(other)
    view.remove("run/nas")
    assert other in view.serving.values()
    view.remove(other.key)
    view.remove(READY.key)
    view.remove("serving/attic/host1")
    assert not view.serving
    view.remove(HOST.key)
    assert not view.hosts


def test_clients_get_the_guests_of_other_hosts() -> None:
    view = View("host1")
    view.report(Trouble.UNREACHED, "http://a:2379: Connection refused", 1_777_104_000.0)
    until = 1_777_104_000.0
    frozen = ServingRecord("nas", "host2", State.READY, until - 60, "frame", "10.0.2.15", until)
    view.replace(
        [frozen, ServingRecord("nas", "host1", State.CONNECTED), ServingRecord("attic", "host3", State.SILENT)]
    )
    empty = {"since": None, "address": None, "frozen_until": None}
    assert guests([], view)["cluster"] == {
        "host": "host1",
        "warnings": ["etcd can't be reached since 2026-04-25T08:00:00Z: http://a:2379: Connection refused"],
        "elsewhere": [
            {"name": "attic", "host": "host3", "state": "silent"} | empty,
            {
                "name": "nas", "host": "host2", "state": "ready", "address": "10.0.2.15",
                "since": "2026-04-25T07:59:00.000Z", "frozen_until": "2026-04-25T08:00:00.000Z",
            },
        ],
    }  # fmt: skip
    assert guests([], None)["cluster"] is None

"""Sources of values, and invalid configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from vchannel import NEVER
from vhostcomm.config.address import Activated, Connect, Listen, ListenTcp, Sock
from vhostcomm.config.identity import derived_uuid
from vhostcomm.config.load import load
from vhostcomm.errors import ConfigError

SERIAL = "1234ABC567890"
RUNTIME = {"RUNTIME_DIRECTORY": "/run/vhostcomm"}


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "vhostcomm.toml"
    path.write_text(text)
    return path


def test_defaults_are_placeholders() -> None:
    loaded = load(socks=["/tmp/guest"], environment={})
    assert loaded.host.serial == loaded.guests[0].identity.serial == "0" * 13
    assert loaded.host.cluster_uuid == "8b532c79-f207-3510-5067-79268f097d46"
    assert loaded.guests[0].identity.uuid == "d990d22a-e971-ef5f-a7b3-e6374e496b34"
    assert loaded.guests[0].identity.update_deadline == NEVER
    assert set(loaded.host_sources.values()) == {"default", "derived from the host's serial number"}


def test_uuids_derive_from_serial_numbers() -> None:
    assert derived_uuid("g", SERIAL.lower()) == derived_uuid("g", SERIAL)
    loaded = load(socks=["/tmp/guest"], flags={"guest-serial": SERIAL.lower(), "host-serial": SERIAL}, environment={})
    assert loaded.guests[0].identity.uuid == derived_uuid("g", SERIAL)
    assert loaded.host.cluster_uuid == derived_uuid("h", SERIAL)


def test_flags_override_the_environment_which_overrides_the_file(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        '[host]\nserial = "AAAAAAAAAAAA1"\nmac = "02-11-32-00-00-01"\nmodel = "file"\n'
        '[guests.nas]\nsock = "/tmp/nas"\nserial = "AAAAAAAAAAAA2"\nvcpus = 2\ncpu = "a,,"\n',
    )
    loaded = load(
        path,
        environment={
            "VHOSTCOMM_HOST_MAC": "0211.3200.0002",
            "VHOSTCOMM_HOST_MODEL": "environment",
            "VHOSTCOMM_VCPUS": "3",
        },
        flags={"host-model": "flag", "guest-serial": "AAAAAAAAAAAA3"},
    )
    assert (loaded.host.serial, loaded.host.mac, loaded.host.model) == ("AAAAAAAAAAAA1", "02:11:32:00:00:02", "flag")
    (guest,) = loaded.guests
    assert (guest.identity.serial, guest.identity.vcpus, guest.identity.cpu) == ("AAAAAAAAAAAA3", 3, "a,,")
    assert loaded.host_sources["serial"] == f"{path}: host.serial"
    assert loaded.host_sources["mac"] == "environment VHOSTCOMM_HOST_MAC"
    assert loaded.host_sources["model"] == "--host-model"
    assert guest.sources["serial"] == "--guest-serial"
    assert guest.sources["cpu"] == f"{path}: guests.nas.cpu"
    assert guest.sources["uuid"] == "derived from the guest's serial number"


def test_settings_of_one_guest_override_those_of_all(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        '[guest]\nvcpus = 4\nupdate_deadline = 2030-01-31\n[guests.a]\nvcpus = 8\n[guests.b]\nuuid = "6BA7B810-9DAD-11D1-80B4-00C04FD430C8"\n',
    )
    a, b = load(path, environment={"RUNTIME_DIRECTORY": "/run/x"}).guests
    assert (a.identity.vcpus, b.identity.vcpus) == (8, 4)
    assert a.identity.update_deadline == b.identity.update_deadline == 1896048000
    assert a.address == Listen(Path("/run/x/a"))
    assert b.address == Listen(Path("/run/x/6ba7b810-9dad-11d1-80b4-00c04fd430c8"))
    assert b.identity.uuid == "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


@pytest.mark.parametrize(
    ("sock", "expected"),
    [
        ("/run/x/nas", Sock("nas", Listen(Path("/run/x/nas")), "")),
        ("nas=/run/x/any thing", Sock("nas", Listen(Path("/run/x/any thing")), "")),
        ("connect:/run/x/nas", Sock("nas", Connect(Path("/run/x/nas")), "")),
        ("tcp:127.0.0.1:12345", Sock("127.0.0.1-12345", ListenTcp("127.0.0.1", 12345), "")),
        ("nas=tcp:[::1]:1", Sock("nas", ListenTcp("::1", 1), "")),
        ("nas=tcp:[fe80::1%eth0]:1", Sock("nas", ListenTcp("fe80::1%eth0", 1), "")),
        ("tcp:nas.example.org:1", Sock("nas.example.org-1", ListenTcp("nas.example.org", 1), "")),
        # The name ends at the first "=", because a path may contain others.
        ("nas=/run/x/b=c", Sock("nas", Listen(Path("/run/x/b=c")), "")),
        ("a=b=c", Sock("a", Listen(Path("b=c").absolute()), "")),
        ("nas=connect:/run/b=c", Sock("nas", Connect(Path("/run/b=c")), "")),
        (
            "/run/x/6BA7B810-9DAD-11D1-80B4-00C04FD430C8",
            Sock(
                "6BA7B810-9DAD-11D1-80B4-00C04FD430C8",
                Listen(Path("/run/x/6BA7B810-9DAD-11D1-80B4-00C04FD430C8")),
                "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            ),
        ),
    ],
)
def test_guests_of_sockets(sock: str, expected: Sock) -> None:
    (guest,) = load(socks=[sock], environment={}).guests
    assert (guest.name, guest.address) == (expected.name, expected.address)
    if expected.uuid:
        assert guest.identity.uuid == expected.uuid
        assert guest.sources["uuid"] == "the socket's name"


def test_a_bare_uuid_needs_a_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert load(socks=[uuid], environment={}).guests[0].address == Listen(Path("/run/vhostcomm") / uuid)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    found = load(socks=[uuid], environment={"XDG_RUNTIME_DIR": "/run/user/1000"}).guests[0].address
    assert found == Listen(Path("/run/user/1000/vhostcomm") / uuid)
    with pytest.raises(ConfigError, match="XDG_RUNTIME_DIR is not set"):
        load(socks=[uuid], environment={})


def test_activated_sockets_serve_guests_of_their_name_or_path(tmp_path: Path) -> None:
    path = config(tmp_path, '[guests.a]\nsock="/run/x/one"\nvcpus=2\n[guests.b]\nsock="/run/x/two"\nvcpus=3\n')
    handed = [
        Sock("a", Activated(3, "/elsewhere")),
        Sock("two", Activated(4, "/run/x/two")),
        Sock("c", Activated(5, "/c")),
    ]
    guests = {each.name: each for each in load(path, activated=handed, environment={}).guests}
    assert {name: (each.address, each.identity.vcpus) for name, each in guests.items()} == {
        "a": (handed[0].address, 2),
        "b": (handed[1].address, 3),
        "c": (handed[2].address, 1),
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("never", NEVER),
        ("NEVER", NEVER),
        ("0", 0),
        ("-5", -5),
        ("1893456000", 1893456000),
        (1893456000, 1893456000),
        ("2030-01-01", 1893456000),
        ("20300101", 1893456000),
        ("2030-01-01T01:00:00+01:00", 1893456000),
        ("2030-01-01 00:00:00", 1893456000),
        (str(NEVER), NEVER),
    ],
)
def test_deadlines_are_parsed(value: object, expected: int) -> None:
    loaded = load(socks=["/x/g"], flags={"update-deadline": value}, environment={})
    assert loaded.guests[0].identity.update_deadline == expected


@pytest.mark.parametrize(
    "mac", ["02:11:32:AB:0f:e6", "02-11-32-ab-0f-e6", "0211.32ab.0fe6", "021132ab0fe6", " 02:11:32:AB:0F:E6 "]
)
def test_mac_addresses_are_parsed(mac: str) -> None:
    assert load(socks=["/x/g"], flags={"host-mac": mac}, environment={}).host.mac == "02:11:32:ab:0f:e6"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[host", "not TOML"),
        (
            '[host]\nserial = "x"\nserial = "y"\n',
            "not TOML: Cannot overwrite a value (at line 3, column 13), in serial",
        ),
        ("[guests.a]\n[guests.a]\n", "twice (at line 2, column 10), in [guests.a]"),
        ('[serve]\ncontrol_token = "a-secret" x\n', "(at line 2, column 28), in control_token"),
        ("serial = 1", "unknown: 'serial'; known: host, guest, guests and serve"),
        ("[host]\ncolour = 1", "host.colour: unknown; known: serial, mac"),
        (
            '[host]\nserial = "SHORT"',
            "host.serial is 'SHORT': a serial number has 13 letters and digits, this has 5; for example: serial = \"1234ABC567890\"",
        ),
        ('[host]\nserial = "1234-BC567890"', "only letters and digits"),
        ("[host]\nserial = true", "it must be text in quotes"),
        ('[host]\nmac = "02:11:32:00:00"', "six pairs"),
        ('[host]\nbuild = "many"', "not a whole number"),
        ("[host]\nbuild = 99999999999", "it must be 0 to"),
        ('[host]\nmodel = "a\\nb"', "unprintable character"),
        ('[host]\ncluster_uuid = "1"', "32 hexadecimal digits"),
        ('[guest]\nupdate_deadline = "soon"', "neither never, nor an ISO date"),
        ("[guest]\nvcpus = 0", "it must be 1 to"),
        ("[guest]\nvcpus = true", "guest.vcpus is true: not a whole number; for example: vcpus = 2"),
        ("[guest]\nvcpus = 2030-01-01", "guest.vcpus is 2030-01-01: not a whole number"),
        ("[serve]\nallow_dangerous = 1", "is 1: it must be yes or no; for example: allow_dangerous = true"),
        ('[serve]\nweb = "localhost"', "a TCP address is HOST:PORT, an IPv6 host in brackets; for example: web ="),
        ('[guests.nas]\nsock = "/x"\nport = 1', "guests.nas.port: unknown"),
        ('[guests."a b"]\nsock = "/x"', "the name of [guests.<name>] is 'a b': a name has 1 to 64"),
        ("[guests]\nnas = 1", "guests.nas is 1; expected a section"),
        ('[guests.a]\nsock="/x/1"\n[guests.b]\nsock="/x/1"', "guest 'a' already has the socket /x/1"),
        ("host = 1", "host is 1; expected a section"),
        ('[serve]\nsocket_mode = "0999"', "three octal digits"),
        ("[serve]\nwatch = 1", "expected a list of directories"),
        ('[serve]\nrecord_limit = "lots"', "a size is a whole number"),
        (
            '[serve]\nrecord = "/x/one"\n[guests.a]\nsock="/x/1"\n[guests.b]\nsock="/x/2"',
            "put {guest} into its name",
        ),
        (f"[host]\nbuild = {'9' * 5000}", "not TOML: Exceeds the limit"),
        (f"[host]\nbuild = 0x{'f' * 5000}", "host.build is too long to be shown: it must be 0 to"),
        (f"host = 0x{'f' * 5000}", "host is too long to be shown; expected a section"),
        (f"[serve]\nwatch = 0x{'f' * 5000}", "serve.watch is too long to be shown: expected a list"),
        (f"[serve]\nsend_timeout = {'9' * 400}", "not a time in seconds"),
        (f"x = {'[' * 5000}", "lists or tables that are nested too deeply"),
        (f"[host]\nserial = {'[' * 300}{']' * 300}", "it must be text in quotes"),
        ('[serve]\nwatch = ["/tmp/\\u0000"]', "serve.watch is '/tmp/\\x00': a path can't contain a NUL"),
        ('[serve]\nwatch = ["/tmp", ""]', "it is empty; for example: watch ="),
        ("[serve]\nwatch = [1]", "it must be text in quotes; for example: watch ="),
        ('[serve]\nrecord = "/tmp/\\u0000"', "a path can't contain a NUL"),
        ('[guests.a]\nsock = "/tmp/\\u0000"', "guests.a.sock is '/tmp/\\x00': a path can't contain a NUL"),
        ('[guests.a]\nsock = "a=tcp:\\u0000:1"', "'\\x00' is not a host"),
        ('[guests.a]\nsock = "tcp:a b:1"', "'a b' is not a host"),
        ('[guests.a]\nsock = "tcp:a b:1"', 'for example: sock = "tcp:127.0.0.1:12345"'),
        ("[serve]\nsocket_group = 4294967295", "a group's number is 0 to 4294967294"),
        ('[serve]\nsocket_group = "-1"', "a group's number is 0 to 4294967294"),
        (f'[serve]\nsocket_group = "{"1" * 4000}"', "a group's number is 0 to 4294967294"),
        ('[serve]\nsocket_group = "²"', "neither a group's name nor its number"),
        ('[serve]\nsocket_group = "a:b"', "neither a group's name nor its number"),
        ("[serve]\nsocket_group = true", "it must be text in quotes"),
    ],
    ids=lambda given: f"{given:.40}",
)
def test_invalid_settings_in_a_file_are_rejected(tmp_path: Path, text: str, what: str) -> None:
    path = config(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path, environment={})
    assert str(path) in str(caught.value)
    assert what.replace("[guests.<name>]", "[guests.NAME]") in str(caught.value).replace(
        "[guests.a b]", "[guests.NAME]"
    )
    assert caught.value.exit_code == 2


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "no.toml", environment={})
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML: byte 0 is not UTF-8; is it the right file"):
        load(tmp_path / "binary", environment={})


def test_one_serial_for_several_guests() -> None:
    with pytest.raises(ConfigError, match=r"serial is given for 2 guests \(a and b\).*\[guests\.a\]"):
        load(socks=["/x/a", "/x/b"], flags={"guest-serial": SERIAL}, environment={})


def test_one_serial_for_all_that_appear_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"serial is given for every guest that appears in /run/x: .*\[guests\.nas\]"):
        load(watch=["/run/x"], flags={"guest-serial": SERIAL}, environment={})
    with pytest.raises(ConfigError, match=r"uuid is given for 1 guest \(a\) and every guest that appears in /run/x: "):
        load(socks=["/x/a"], watch=["/run/x"], environment={"VHOSTCOMM_GUEST_UUID": derived_uuid("g", SERIAL)})
    path = config(tmp_path, '[serve]\nwatch = ["/run/x"]\n[guests.a]\nsock = "/x/a"\n')
    with pytest.raises(ConfigError, match="serial is given for 1 guest"):
        load(path, flags={"guest-serial": SERIAL}, environment={})
    assert load(watch=["/run/x"], flags={"vcpus": "2"}, environment={}).watch == (Path("/run/x"),)


def test_guests_with_the_same_identity_cause_a_warning(tmp_path: Path) -> None:
    assert load(socks=["/x/a"], environment={}).warnings == ()
    guests = "".join(f'[guests.g{place}]\nsock = "/x/{place}"\nserial = "{place:013}"\n' for place in range(10))
    loaded = load(config(tmp_path, guests), environment={})
    assert loaded.warnings == ()
    same = f'[guests.a]\nsock = "/x/a"\nserial = "{3:013}"\nuuid = "{derived_uuid("g", SERIAL)}"\n'
    loaded = load(config(tmp_path, guests + same), environment={})
    (warning,) = loaded.warnings
    assert warning.startswith("the guests g3 and a have the same serial number (0000000000003): give each its own")
    serial, uuid = load(socks=[f"/x/g{place}" for place in range(10)], environment={}).warnings
    assert serial.startswith("the guests g0, g1, g2, g3, g4 and 5 more have the same serial number (0000000000000)")
    assert "have the same UUID (d990d22a-e971-ef5f-a7b3-e6374e496b34)" in uuid


@pytest.mark.parametrize(
    ("given", "kept"), [("kvm", "kvm"), (" 44 ", "44"), ("4294967294", "4294967294"), (44, "44"), ("a b@x", "a b@x")]
)
def test_groups_are_parsed(given: object, kept: str) -> None:
    assert load(socks=["/x/a"], flags={"socket-group": given}, environment={}).service.socket_group == kept


@pytest.mark.parametrize(
    ("sock", "what"),
    [
        ("tcp:my host:1", "'my host' is not a host: .*; for example: nas=tcp:127.0.0.1:12345"),
        ("nas=tcp:\0:1", "is not a host"),
        (f"tcp:{'a' * 64}:1", "is not a host"),
        ("tcp:a..b:1", "is not a host"),
        ("tcp::1", "'' is not a host"),
        ("tcp:host", "a TCP address is tcp:HOST:PORT"),
        (f"tcp:{'a' * 60}.example:1", "can't be the guest's name .*; name it: NAME=tcp:"),
        ("tcp:[fe80::1%eth0]:1", "can't be the guest's name .*; name it: NAME=tcp:"),
        ("/x/a=b", "can't be the guest's name .*; name it: NAME=/x/a=b"),
        ("a b=/x/c", "a name has 1 to 64 .*; for example: nas="),
    ],
)
def test_invalid_sockets_are_rejected(sock: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        load(socks=[sock], environment={})


TOKEN = {"control-token": "a-long-random-secret"}


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (
            {"control": "tcp:0.0.0.0:9120"} | TOKEN,
            "--control is tcp:0.0.0.0:9120: .*; use tls:HOST:9120 with certificates, tcp:127.0.0.1:9120, or .*ssh://HOST",
        ),
        ({"control": "tcp:[::]:9120"} | TOKEN, "without encryption"),
        ({"control": "tcp:192.0.2.1:9120"} | TOKEN, "without encryption"),
        ({"control": "tcp:nas.example:9120"} | TOKEN, "without encryption"),
        ({"web": "0.0.0.0:8470"}, "--web is 0.0.0.0:8470: .*; use 127.0.0.1:8470, .* ssh -L 8470:127.0.0.1:8470 HOST"),
        ({"web": "tcp:[fe80::1%eth0]:8470"}, "without encryption"),
        ({"qemu-host-api": ":2210"}, "--qemu-host-api is :2210: .*; use 127.0.0.1:2210 or unix:/PATH"),
        ({"qemu-host-api": "tcp:192.0.2.1:2210"}, "without encryption"),
    ],
    ids=str,
)
def test_what_can_stop_guests_is_not_reachable_without_encryption(flags: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        load(socks=["/x/a"], flags=flags, environment={})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_the_loopback_needs_no_encryption(host: str) -> None:
    flags = {"control": f"tcp:{host}:1", "web": f"{host}:2", "qemu-host-api": f"{host}:3"} | TOKEN
    assert load(socks=["/x/a"], flags=flags, environment={}).service.web == f"{host}:2"


def test_an_unknown_variable() -> None:
    with pytest.raises(
        ConfigError,
        match=r"VHOSTCOMM_SERIAL: unknown; did you mean VHOSTCOMM_HOST_SERIAL\?$",
    ):
        load(socks=["/x/a"], environment={"VHOSTCOMM_SERIAL": SERIAL})


def test_an_invalid_token_is_in_no_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"CONTROL_TOKEN is .hidden.: a token is 16 to 256") as environment:
        load(socks=["/x/a"], environment={"VHOSTCOMM_CONTROL_TOKEN": "s3cret"})
    with pytest.raises(ConfigError, match=r"--control-token is .hidden.: a token is") as flag:
        load(socks=["/x/a"], flags={"control-token": "s3cret"}, environment={})
    with pytest.raises(ConfigError, match=r"serve.control_token is .hidden.: a token is") as file:
        load(config(tmp_path, '[serve]\ncontrol_token = "s3cret"\n'), environment={})
    for caught in (environment, flag, file):
        assert "s3cret" not in str(caught.value)

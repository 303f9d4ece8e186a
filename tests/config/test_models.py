"""Settings, the guests and sources that result, and settings that exclude each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.config.test_load import RUNTIME, SERIAL, config
from vhostcomm.config import identity, load, machine, models, reading, values
from vhostcomm.config.address import Activated, Listen, Sock
from vhostcomm.config.identity import derived_uuid
from vhostcomm.config.template import template
from vhostcomm.errors import ConfigError

NAS = '[guests.nas]\nsock = "/x/nas"\n'


def test_setting_has_metadata_for_its_flag_and_key() -> None:
    kind = values.number(0, 9)

    @attrs.frozen
    class Model:
        one: int = identity.setting(1, kind, "Help.", "2", "one-flag")
        two: int = identity.setting(0, kind, "Help.", "2", metavar="WORD")
        three: str = identity.setting("", values.TEXT, "Help.", "a")
        four: tuple[str, ...] = identity.setting((), values.PATHS, "Help.", '["a"]')

    one, two, three, four = attrs.fields(Model)
    assert (one.default, dict(one.metadata)) == (
        1, {"kind": kind, "help": "Help.", "example": "2", "flag": "one-flag", "word": "N"}
    )  # fmt: skip
    assert two.metadata["word"] == "WORD"
    assert [identity.default_text(each) for each in (one, two, three, four)] == ["1", "0", "", ""]
    assert [identity.example_toml(each) for each in (one, three, four)] == ["2", '"a"', '["a"]']
    assert [identity.flag_of(each) for each in (one, two)] == ["one-flag", "two"]
    assert reading.variable(one) == "VHOSTCOMM_ONE_FLAG"


@pytest.mark.parametrize(
    ("key", "given", "made"),
    [
        ("boot", "b.img", "/x/b.img"),
        ("system", "/y/s.img", "/y/s.img"),
        ("boot", "", ""),
        ("boot", "naa.5", "naa.5"),
        ("data", ("a", "naa.5", ""), ("/x/a", "naa.5", "")),
        ("forward", ("80:80",), ("80:80",)),
        ("net", "user", "user"),
        ("memory", 5, 5),
    ],
)
def test_disks_beside_the_file(key: str, given: object, made: object) -> None:
    assert machine.beside(Path("/x"), key, given) == made


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (list("abcde"), "a, b, c, d and e"),
        (list("abcdef"), "a, b, c, d, e and 1 more"),
    ],
)
def test_names_in_a_sentence(names: list[str], text: str) -> None:
    assert models.several(names) == text


def test_unlisted_guest_has_the_common_values(tmp_path: Path) -> None:
    loaded = load.load(config(tmp_path, "[guest]\nvcpus = 3\n" + NAS + "vcpus = 2\n"), environment={})
    uuid = derived_uuid("x", SERIAL)
    found = loaded.guest(Sock("other", Listen(Path("/x/other")), uuid))
    assert (found.name, found.identity.vcpus, found.identity.uuid) == ("other", 3, uuid)
    assert (found.sources["uuid"], found.sources["serial"]) == ("the socket's name", "default")
    again = loaded.guest(Sock("nas", Listen(Path("/x/two"))))
    assert (again.identity.vcpus, again.identity.uuid) == (2, derived_uuid("g", "0" * 13))


def test_active_values_and_sources(tmp_path: Path) -> None:
    text = f'{NAS}qmp = "/x/qmp"\n[guests.nas.machine]\ndata = ["a"]\nmemory = "2G"\n[serve]\ncontrol_token = "{"t" * 16}"\n'
    path = config(tmp_path, text)
    loaded = load.load(path, environment={})
    shown = models.effective(loaded)
    assert list(shown) == ["host", "guests.nas", "guests.nas.machine", "serve"]
    assert shown["host"]["cluster_uuid"]["source"] == "derived from the host's serial number"
    assert shown["guests.nas"]["sock"] == {"value": "/x/nas", "source": f"{path}: guests.nas.sock"}
    assert shown["guests.nas"]["qmp"] == {"value": "/x/qmp", "source": f"{path}: guests.nas.qmp"}
    assert shown["guests.nas.machine"]["data"] == {
        "value": [f"{tmp_path}/a"],
        "source": f"{path}: guests.nas.machine.data",
    }
    assert shown["guests.nas.machine"]["memory"]["value"] == 2 << 30
    assert shown["guests.nas.machine"]["boot"] == {"value": "", "source": "default"}
    assert shown["serve"]["control_token"]["value"] == "(hidden)"
    assert shown["serve"]["socket_mode"]["value"] == "0600"
    assert shown["serve"]["allow_dangerous"]["value"] is False
    as_text = models.effective(loaded, as_text=True)
    assert as_text["guests.nas.machine"]["memory"]["value"] == "2G"
    assert as_text["guests.nas.machine"]["data"]["value"] == f"{tmp_path}/a"
    assert as_text["serve"]["allow_dangerous"]["value"] == "no"
    others = models.effective(load.load(environment={}))
    assert list(others) == ["host", "guest", "serve"]
    assert others["guest"]["uuid"] == {
        "value": derived_uuid("g", "0" * 13),
        "source": "the socket's name if that is one, else derived from the guest's serial number",
    }
    assert others["serve"]["control_token"]["value"] == ""
    watched = models.effective(load.load(watch=["/x"], socks=["/y/nas"], environment={"VHOSTCOMM_VCPUS": "3"}))
    assert list(watched) == ["host", "guest", "guests.nas", "serve"]
    assert watched["guest"]["vcpus"]["value"] == 3
    assert watched["guests.nas"]["sock"]["source"] == "--sock /y/nas"
    own = models.effective(
        load.load(config(tmp_path, f'[guest]\nuuid = "{derived_uuid("g", SERIAL)}"'), environment={})
    )
    assert own["guest"]["uuid"] == {"value": derived_uuid("g", SERIAL), "source": f"{path}: guest.uuid"}


def test_a_configuration_of_defaults_alone() -> None:
    bare = models.Config(identity.HostIdentity(), (), models.Service())
    assert models.effective(bare)["host"]["serial"] == {"value": "0" * 13, "source": "default"}
    assert models.effective(bare)["guest"]["vcpus"] == {"value": 1, "source": "default"}
    guest = attrs.evolve(bare.guest(Sock("nas", Listen(Path("/x/nas")))), sources={}, qmp="/x/qmp")
    shown = models.effective(attrs.evolve(bare, guests=(guest,)))["guests.nas"]
    assert (shown["sock"], shown["qmp"]) == ({"value": "/x/nas", "source": ""}, {"value": "/x/qmp", "source": ""})
    lines = template().splitlines()
    assert {"# frame_rate = 2000", "# allow_dangerous = false", '# update_deadline = "never"'} <= {*lines}
    assert {"# vmm_timestamp = 1650802981", '# mac = "00:00:00:00:00:00"', '# socket_mode = "0600"'} <= {*lines}


def _load(tmp_path: Path, text: str = "", **words: Any) -> models.Config:
    return load.load(config(tmp_path, text), environment=RUNTIME, **words)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"flags": {"control": "tcp:127.0.0.1:1"}},
         ("--control is tcp:127.0.0.1:1: any client that reaches it could stop guests, so TCP needs a token: "
         "VHOSTCOMM_CONTROL_TOKEN=$(openssl rand -hex 16)")),
        ({"flags": {"record": "one"}, "socks": ["/x/a", "/x/b"]},
         "--record: 'one' is one file, but each guest needs its own recording; put {guest} into its name"),
        ({"flags": {"record": "one"}, "socks": ["/x/a"], "watch": ["/x"]},
         "--record: 'one' is one file, but each guest needs its own recording; put {guest} into its name"),
        ({"flags": {"qemu-host-api": "[::1]:80"}, "socks": ["/x/a", "/x/b"]},
         "--qemu-host-api: qemu-host's API is for one guest, but there are 2: serve that guest with its own process"),
        ({"flags": {"qemu-host-api": "[::1]:80"}},
         "--qemu-host-api: qemu-host's API is for one guest, but there are 0: serve that guest with its own process"),
        ({"flags": {"qemu-host-api": "[::1]:80"}, "socks": ["/x/a"], "watch": ["/x"]},
         "--qemu-host-api: qemu-host's API is for one guest, but there are watched directories: serve that guest with its own process"),
        ({"flags": {"guest-serial": SERIAL, "guest-uuid": derived_uuid("g", SERIAL)}, "watch": ["/x", "/y"]},
         ("the guest's serial and uuid is given for every guest that appears in /x, /y: give each its own in a --config "
         'file, as [guests.nas] serial = "…"')),
        ({"flags": {"guest-serial": SERIAL}, "socks": ["/x/a", "/x/b"]},
         "the guest's serial is given for 2 guests (a and b): give each its own in a --config file, as [guests.a] serial = \"…\""),
        ({"socks": ["/x/a", "/y/a"]}, "--sock /y/a: another guest is named 'a'; give this one a different name: NAME=SOCK"),
        ({"socks": ["/x/a", "b=/x/a"]}, "--sock b=/x/a: guest 'a' already has the socket /x/a"),
        *(
            (
                {"flags": {"control": "tls:nas:1"} | dict.fromkeys(files, "/x")},
                ("--control is tls:nas:1: TLS needs three files: --control-ca, --control-cert and --control-key, or these "
                "under [serve], as control_key and so on"),
            )
            for files in (
                ("control-cert", "control-key"), ("control-ca", "control-key"), ("control-ca", "control-cert"),
            )
        ),
        ({"socks": ["connect:"]},
         "--sock is 'connect:': the socket's path is missing; for example: nas=/run/vhostcomm/nas"),
        ({"socks": ["tcp:x"]},
         "--sock is 'tcp:x': a TCP address is tcp:HOST:PORT, an IPv6 host in brackets; for example: nas=tcp:127.0.0.1:12345"),
        ({"watch": [""]}, "--watch is '': it is empty; for example: /run/guests"),
    ],
)  # fmt: skip
def test_settings_that_exclude_each_other_are_rejected(words: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load.load(environment=RUNTIME, **words)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"[guests.nas]\nuuid = '{derived_uuid('g', SERIAL)}'\n",
         (f"guests.nas: its path /{'x' * 70}/{derived_uuid('g', SERIAL)} has 108 bytes, but a unix socket's path has at most 107; "
         'for example: sock = "/run/vhostcomm/nas"')),
        ('[guests.nas]\nsock = "tcp:x"',
         ("guests.nas.sock is 'tcp:x': a TCP address is tcp:HOST:PORT, an IPv6 host in brackets; "
         'for example: sock = "tcp:127.0.0.1:12345"')),
        ('[guests.nas]\nsock = ""', f"guests.nas.sock is '': it is empty; for example: sock = \"/{'x' * 70}/nas\""),
        ('[guests.nas]\nqmp = "x"',
         "guests.nas.qmp is 'x': expected the absolute path of a unix socket; for example: qmp = \"/run/qemu/nas.qmp\""),
        (f'[guests.nas]\nqmp = "/{"q" * 107}"',
         (f"guests.nas.qmp is '/{'q' * 79}'…: its path /{'q' * 107} has 108 bytes, but a unix socket's path has at most 107; "
         'for example: qmp = "/run/qemu/nas.qmp"')),
        ("[serve]\nwatch = 1", 'serve.watch is 1: expected a list of directories; for example: watch = ["/run/guests"]'),
        ("[serve]\nwatch = ['']", "serve.watch is '': it is empty; for example: watch = [\"/run/guests\"]"),
        (
            f"[guests.b]\nsock = '/{'x' * 70}/a'\n[guests.a]\n",
            f"guests.a: guest 'b' already has the socket /{'x' * 70}/a",
        ),
        ("guests = 1", "guests is 1; expected a section; for example: [guests]"),
        ('[guests]\n"a.b" = 1', 'guests."a.b" is 1; expected a section; for example: [guests."a.b"]'),
        (
            "[host]\nwatch = 1",
            "host.watch: unknown; known: serial, mac, model, build, fix, vmm_version, vmm_timestamp, cluster_uuid",
        ),
        ("x = 1\ny = 2", "unknown: 'x' and 'y'; known: host, guest, guests and serve"),
        ('[guests.""]', "the name of [guests.] is '': it is empty; for example: [guests.nas]"),
    ],
)  # fmt: skip
def test_invalid_types_in_a_file_are_rejected(tmp_path: Path, text: str, why: str) -> None:
    path = config(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load.load(path, environment={"RUNTIME_DIRECTORY": "/" + "x" * 70})
    assert str(caught.value) == f"{path}: {why}"


def test_settings_that_can_be_combined(tmp_path: Path) -> None:
    assert _load(tmp_path, flags={"control": "tcp:[::1]:1", "control-token": "t" * 16}).service.control == "tcp:[::1]:1"
    files = dict.fromkeys(("control-ca", "control-cert", "control-key"), "/x")
    assert _load(tmp_path, flags={"control": "tls:nas:1"} | files).service.control_key == "/x"
    alone: list[dict[str, Any]] = [{"socks": ["/x/a"]}, {"watch": ["/x"]}, {}]
    for words in alone:
        assert _load(tmp_path, flags={"record": "one"}, **words).service.record == "one"
    both = _load(tmp_path, flags={"record": "{guest}"}, socks=["/x/a", "/x/b"])
    assert both.service.record == "{guest}"
    load.check(both)
    load.check(_load(tmp_path, watch=["/x"]))
    with pytest.raises(ConfigError) as caught:
        load.check(_load(tmp_path))
    why = "no guest to serve: add [guests.NAME] to the --config file, or give --sock or --watch"
    assert str(caught.value) == why
    with pytest.raises(ConfigError, match="--record: 'one' is one file"):
        load.check(attrs.evolve(both, service=models.Service(record="one"), service_sources={"record": "--record"}))


def test_name_of_a_socket_is_a_guests_uuid(tmp_path: Path) -> None:
    """The socket's UUID becomes the guest's UUID, unless the guest has another."""
    uuid, other = derived_uuid("g", "1234abc567890"), derived_uuid("g", "")
    assert uuid == "02707f60-f946-5b1e-c5d0-ae5c6121ae60"
    text = (
        f"[guests.a]\nsock = '{uuid}'\n[guests.b]\nsock = '/x/{other}'\nuuid = '{uuid}'\n[guests.c]\nuuid = '{other}'\n"
    )
    a, b, c = _load(tmp_path, text).guests
    assert (a.address, a.identity.uuid, a.sources["uuid"]) == (
        Listen(Path("/run/vhostcomm") / uuid), uuid, "the socket's name"
    )  # fmt: skip
    assert (b.address, b.identity.uuid) == (Listen(Path("/x") / other), uuid)
    assert (c.address, c.identity.uuid) == (Listen(Path("/run/vhostcomm") / other), other)


def test_without_a_runtime_directory_sockets_have_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    (guest,) = load.load(socks=["/x/nas"], environment={}).guests
    assert guest.sources["sock"] == "--sock /x/nas"
    (passed,) = load.load(activated=[Sock("nas", Activated(3, "/x/nas"))], environment={}).guests
    assert passed.sources["sock"] == "systemd"


def test_only_the_named_guest_of_a_file_is_read(tmp_path: Path) -> None:
    loaded = _load(tmp_path, f"{NAS}[guests.other]\nsock = 1\n", only="nas")
    assert [each.name for each in loaded.guests] == ["nas"]


def test_folders_to_watch_of_files_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = _load(tmp_path, '[serve]\nwatch = ["/a", "b"]\n', watch=["c", Path("/d")])
    assert loaded.watch == (Path("/a"), tmp_path / "b", tmp_path / "c", Path("/d"))
    source = f"{tmp_path}/vhostcomm.toml: serve.watch"
    later = tmp_path / "later.toml"
    later.write_text("[serve]\nframe_rate = 5\n")
    assert load.load([tmp_path / "vhostcomm.toml", later], environment=RUNTIME).watch == loaded.watch[:2]
    assert loaded.watch_sources == (source, source, "--watch", "--watch")

"""Addresses of guests' channels, the control surface and APIs, and the directories with their sockets."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.config.test_reading import hidden
from vhostcomm.config import address, http_address
from vhostcomm.config.address import Activated, Connect, Listen, ListenTcp, Sock

UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
UNIT = {"RUNTIME_DIRECTORY": "/run/x", "XDG_RUNTIME_DIR": "/run/user/1000"}
USER = {"XDG_RUNTIME_DIR": "/run/user/1000"}


@pytest.fixture
def _as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (Listen(Path("/x/nas")), "/x/nas"),
        (Connect(Path("/x/nas")), "connect:/x/nas"),
        (ListenTcp("nas.lan", 1), "tcp:nas.lan:1"),
        (ListenTcp("::1", 65535), "tcp:[::1]:65535"),
        (http_address.ListenTls("::1", 1), "tls:[::1]:1"),
        (Activated(3, "/x/nas"), "systemd:/x/nas"),
    ],
)
def test_addresses_as_text(made: object, text: str) -> None:
    assert str(made) == text


@pytest.mark.usefixtures("_as_user")
def test_runtime_directory_of_a_user() -> None:
    assert address.runtime_directory(USER) == Path("/run/user/1000/vhostcomm")
    assert address.runtime_directory(UNIT) == Path("/run/x")
    assert address.runtime_directory({"RUNTIME_DIRECTORY": "/run/a:/run/b:/run/c"}) == Path("/run/a")
    with pytest.raises(ValueError, match=r"no runtime directory .* XDG_RUNTIME_DIR is not set; set it"):
        address.runtime_directory({"XDG_RUNTIME_DIR": ""})
    assert http_address.runtime_directories(UNIT) == [Path("/run/x")]
    assert http_address.runtime_directories(USER) == [Path("/run/user/1000/vhostcomm"), Path("/run/vhostcomm")]
    assert http_address.runtime_directories({}) == [Path("/run/vhostcomm")]


def test_runtime_directory_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert address.runtime_directory(USER) == Path("/run/vhostcomm")
    assert address.runtime_directory(UNIT) == Path("/run/x")
    assert http_address.runtime_directories(USER) == [Path("/run/vhostcomm")]
    assert http_address.runtime_directories({"RUNTIME_DIRECTORY": "/run/vhostcomm"}) == [Path("/run/vhostcomm")]


@pytest.mark.usefixtures("_as_user")
def test_examples_have_the_directory_of_this_user() -> None:
    assert address.example_socket("nas", USER) == Path("/run/user/1000/vhostcomm/nas")
    assert address.example_socket("nas", {}) == Path("/run/vhostcomm/nas")
    longest = {"RUNTIME_DIRECTORY": "/" + "x" * (107 - len("//nas"))}
    assert address.example_socket("nas", longest) == Path(longest["RUNTIME_DIRECTORY"]) / "nas"
    assert address.example_socket("nas2", longest) == Path("/run/vhostcomm/nas2")
    text = "sock = /run/vhostcomm/a, /run/vhostcomm/b"
    assert address.own_example(text, UNIT) == "sock = /run/x/a, /run/x/b"
    assert address.own_example(text, {}) == text


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("/x/nas", Sock("nas", Listen(Path("/x/nas")))),
        ("connect:/x/nas", Sock("nas", Connect(Path("/x/nas")))),
        ("tcp:[::1]:1", Sock("__1-1", ListenTcp("::1", 1))),
        ("nas=tcp:a.b.:0", Sock("nas", ListenTcp("a.b.", 0))),
        ("nas", Sock("nas", Listen(Path("nas").absolute()))),
        (f"/x/{UUID}.sock", Sock(f"{UUID}.sock", Listen(Path(f"/x/{UUID}.sock")), UUID)),
        (UUID.upper(), Sock(UUID.upper(), Listen(Path("/run/x") / UUID.upper()), UUID)),
        (f"nas=connect:{UUID}", Sock("nas", Connect(Path("/run/x") / UUID), UUID)),
        (f"{UUID}0", Sock(f"{UUID}0", Listen(Path(f"{UUID}0").absolute()))),
        (f"nas=/{'x' * 106}", Sock("nas", Listen(Path(f"/{'x' * 106}")))),
    ],
)
def test_sockets_are_parsed(given: str, made: Sock) -> None:
    assert address.parse_sock(given, UNIT) == made


@pytest.mark.parametrize(
    ("parse", "given", "why"),
    [
        (address.parse_sock, None, "it must be text in quotes"),
        (address.parse_sock, "", "it is empty"),
        (address.parse_sock, "nas=", "the socket's path is missing"),
        (address.parse_sock, "connect:", "the socket's path is missing"),
        (address.parse_sock, "connect:a=b", r"'a=b' can't be the guest's name \(a name has .*\); name it: NAME=connect:a=b"),
        (address.parse_sock, "127.0.0.1:12345", "^a TCP address begins with tcp: write tcp:127.0.0.1:12345$"),
        (address.parse_sock, "tcp:a=b:1", "'a=b' is not a host"),
        (address.parse_sock, "nas=/", "^/ is a directory; give the path of a socket$"),
        *((parse, f"{prefix}unix:{path}", f"^a unix socket is given by its path alone: write {path}$")
          for parse, prefix in ((address.parse_sock, "nas="), (address.parse_sock, "connect:"), (http_address.CONTROL.parse, ""))
          for path in ("/x/a", "a")),
        (http_address.CONTROL.parse, "/", "^/ is a directory; give the path of a socket$"),
        (address.parse_sock, f"nas=/{'x' * 107}", f"its path /{'x' * 107} has 108 bytes, but .* at most 107"),
        (http_address.CONTROL.parse, None, "it must be text in quotes"),
        (http_address.CONTROL.parse, "foo://x", "^a control address is a path, tcp:HOST:PORT or tls:HOST:PORT; "),
        (http_address.CONTROL.parse, "ssh://nas", "a daemon can't listen on another host"),
        (http_address.CONTROL.parse, f"/{'é' * 54}", "has 109 bytes"),
        (http_address.CONTROL.parse, "a\0b", "a path can't contain a NUL"),
        (http_address.CONTROL.parse, "tcp:nas", "a TCP address is tcp:HOST:PORT"),
        (http_address.API.parse, None, "it must be text in quotes"),
        (http_address.API.parse, "unix:x", "a unix socket is given by its absolute path"),
        (http_address.API.parse, f"/{'x' * 107}", "has 108 bytes"),
        (http_address.API.parse, "80", "a TCP address is HOST:PORT"),
        (http_address.WEB.parse, None, "it must be text in quotes"),
        (http_address.WEB.parse, "unix:/x", "a TCP address is HOST:PORT"),
        *((http_address.WEB.parse, given, "a TCP address is HOST:PORT, an IPv6 host in brackets")
          for given in ("nas", "nas:", "nas:x", "nas:65536", "nas:000080", "::1:80", "[::1]", "[[::1]]:80", "nas:80 ", "nas:\u0663")),
        *((http_address.WEB.parse, f"[{host}]:80", f"^'{host}' is not an IPv6 address$")
          for host in ("", "127.0.0.1", "fe80::1%", "fe80::1%a b", f"fe80::1%{'x' * 16}")),
        *((http_address.WEB.parse, f"{host}:80", "is not a host: an IPv4 address, an IPv6 address in brackets, or a host's name")
          for host in ("", "a..b", ".a", "a b", "é", "a" * 64, ("a" * 63 + ".") * 3 + "a" * 62)),
    ],
)  # fmt: skip
def test_invalid_addresses_are_rejected(parse: Any, given: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(given)


@pytest.mark.parametrize(
    "host",
    ["[::]", f"[fe80::1%{'x' * 15}]", "[fe80::1%br-0.1_a]", "127.0.0.1", "a" * 63, "a_b-c.", ("a" * 63 + ".") * 3 + "a" * 61],
)  # fmt: skip
@pytest.mark.parametrize("port", [0, 65535])
def test_hosts_of_an_api_are_parsed(host: str, port: int) -> None:
    assert http_address.web_address(f"{host}:{port}") == ListenTcp(host.strip("[]"), port)
    assert http_address.parse_api(f"tcp:{host}:{port}") == http_address.web_address(f"tcp:{host}:{port}")
    assert http_address.WEB.parse(f"{host}:{port}") == f"{host}:{port}"


def test_addresses_of_the_control_surface(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert http_address.control_address("none", {}) is None
    assert http_address.control_address("tcp:[::1]:80") == ListenTcp("::1", 80)
    assert http_address.control_address("tls:nas.lan:80") == http_address.ListenTls("nas.lan", 80)
    assert http_address.control_address("", UNIT) == Listen(Path("/run/x/control.sock"))
    assert http_address.control_address("own.sock", UNIT) == Listen(tmp_path / "own.sock")
    assert http_address.CONTROL.parse("own.sock") == "own.sock"
    assert [str(each) for each in http_address.own_control_places("nas", UNIT)] == [
        "/run/x/control/nas.sock",
        f"/run/x/control/nas-{os.getpid()}.sock",
    ]
    with pytest.raises(ValueError, match="bytes, but a unix socket's path has at most 107"):
        http_address.own_control_places("n" * 64, {"RUNTIME_DIRECTORY": "/" + "x" * 60})


def test_addresses_of_an_api() -> None:
    assert http_address.parse_api("unix:/x/api") == http_address.parse_api("/x/api") == Listen(Path("/x/api"))
    assert http_address.API.parse("unix:/x/api") == "unix:/x/api"
    assert http_address.parse_api("nas:80") == ListenTcp("nas", 80)


@pytest.mark.parametrize(
    ("host", "only_this_machine"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("fe80::1%lo", False), ("nas", False), ("", False),
    ],
)  # fmt: skip
def test_who_can_reach_a_host(host: str, only_this_machine: bool) -> None:
    assert http_address.is_of_this_machine(host) == only_this_machine


def test_an_api_without_a_host_is_at_every_address() -> None:
    """A port that is in use, or that needs a right, does not affect whether IPv6 is found."""
    with ExitStack() as held:
        every = "::"
        try:
            held.enter_context(socket.socket(socket.AF_INET6)).bind(("::", 0))
        except OSError:
            every = "0.0.0.0"
        with suppress(OSError):  # without the right to bind it, or if it is in use, the result is the same
            held.enter_context(socket.socket(socket.AF_INET6)).bind(("::", 1))
        assert http_address.parse_api(":80") == http_address.parse_api("tcp::80") == ListenTcp(every, 80)


def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "AF_INET6", 9999)  # no kernel has this address family
    assert http_address.parse_api(":80") == ListenTcp("0.0.0.0", 80)


@pytest.mark.usefixtures("_as_user")
def test_control_surfaces_are_found(monkeypatch: pytest.MonkeyPatch, short_path: Path) -> None:
    """Found: sockets of this user and the system, of launchers, and of a unit's instances. Other files are ignored."""
    own, system = short_path / "user" / "vhostcomm", short_path / "run" / "vhostcomm"
    monkeypatch.setattr(http_address, "SYSTEM_RUNTIME", system)
    unit = system.with_name("vhostcomm-run-nas")
    with ExitStack() as stack:
        found = [own / "control/b.sock", system / "control.sock", unit / "control/nas.sock", unit / "control/two.sock"]
        for path in (*found, own / "control/b.txt", system / "nas", system.with_name("other") / "control.sock"):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        (own / "control.sock").touch()
        (own / "control/a.sock").touch()
        environment = {"XDG_RUNTIME_DIR": str(own.parent)}
        assert http_address.control_places(environment) == [Listen(path) for path in found]
        assert http_address.control_folders(environment) == [
            own.parent, system.parent, own, own / "control", system, system / "control", unit, unit / "control"
        ]  # fmt: skip
        unit_alone = {"RUNTIME_DIRECTORY": str(own)}
        assert http_address.control_places(unit_alone) == [Listen(found[0])]
        assert http_address.control_folders(unit_alone) == [own.parent, own, own / "control"]


def test_a_socket_that_this_user_may_not_see(tmp_path: Path) -> None:
    path = tmp_path / "hidden" / "control.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        assert http_address.is_socket(path)
        assert not http_address.is_socket(path.parent)
        with hidden(path.parent):
            assert not http_address.is_socket(path)


def test_a_runtime_directory_that_this_user_may_not_enter() -> None:
    """Another user may not enter root's runtime directory."""
    with tempfile.TemporaryDirectory(prefix="vhostcomm-test-") as made:  # every user may enter it, unlike pytest's
        Path(made).chmod(0o755)
        own, other = Path(made, "vhostcomm"), Path(made, "vhostcomm-other")
        for each in own, other:
            (each / "control").mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(own / "control/nas.sock"))
            with hidden(other):
                assert http_address.control_places({"RUNTIME_DIRECTORY": str(own)}) == [
                    Listen(own / "control/nas.sock")
                ]

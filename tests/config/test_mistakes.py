"""All mistakes of a configuration are reported at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.config.test_load import config
from tests.serving import ENVIRONMENT, run_vhostcomm
from vhostcomm.config.collecting import KEPT, Mistakes
from vhostcomm.config.load import check, load
from vhostcomm.config.models import Service
from vhostcomm.errors import REASONS_SHOWN, ConfigError, ServeError, VhostcommError


def mistakes(*files: Path, **words: Any) -> list[str]:
    """Load a configuration with mistakes, and return the beginning of each, without the directory of the files."""
    with pytest.raises(ConfigError) as caught:
        load(files, **({"environment": {}} | words))
    found = [str(each).replace(f"{files[0].parent}/" if files else "/x", "") for each in caught.value.reasons]
    return [": ".join(each.split(": ")[:2]).partition(";")[0] for each in found]


def test_every_mistake_of_the_files_the_environment_and_the_flags(tmp_path: Path) -> None:
    one, two, third = tmp_path / "1.toml", tmp_path / "2.toml", tmp_path / "3.toml"
    one.write_text(
        "guest = 1\nextra = 1\nmore = 2\n[host]\nserial = 'x'\nfix = 'y'\n"
        "[guests.'a b']\nvcpus = 'x'\n[guests.nas]\nsocks = 1\nsock = 'tcp:x'\nqmp = 'x'\nserial = 'y'\n"
        "[guests.nas.machine]\nmac = 'x'\nmemory = 'x'\n[guests]\nother = 1\n"
        "[serve]\nframe_rate = 'x'\nwatch = ['', 1, '/x']\n"
    )
    two.write_text("[host\n")
    third.write_text("guests = 1\n[serve]\nrecord = 1\n")
    found = mistakes(
        one,
        two,
        tmp_path / "away.toml",
        third,
        environment={"VHOSTCOMM_VCPUS": "x", "VHOSTCOMM_VCPU": "1", "VHOSTCOMM_WEB": "x"},
        flags={"host-serial": "1", "guest-serial": "2"},
        socks=["tcp:x", "connect:"],
        watch=["", "/y", "\0"],
    )
    assert found == [
        "1.toml: host.serial is 'x'",
        "1.toml: host.fix is 'y'",
        "1.toml: guest is 1",
        "1.toml: serve.frame_rate is 'x'",
        "1.toml: unknown",
        "1.toml: the name of [guests.a b] is 'a b'",
        "1.toml: guests.a b.vcpus is 'x'",
        "1.toml: guests.nas.socks",
        "1.toml: guests.nas.serial is 'y'",
        "1.toml: guests.nas.sock is 'tcp:x'",
        "1.toml: guests.nas.qmp is 'x'",
        "1.toml: guests.nas.machine.mac is 'x'",
        "1.toml: guests.nas.machine.memory is 'x'",
        "1.toml: guests.other is 1",
        "2.toml: not TOML",
        "away.toml: No such file or directory",
        "3.toml: serve.record is 1",
        "3.toml: guests is 1",
        "1.toml: serve.watch is ''",
        "1.toml: serve.watch is 1",
        "--watch is '': it is empty",
        "--watch is '\\x00': a path can't contain a NUL",
        "the environment's VHOSTCOMM_VCPUS is 'x': not a whole number",
        "the environment's VHOSTCOMM_VCPU: unknown",
        "the environment's VHOSTCOMM_WEB is 'x': a TCP address is HOST:PORT, an IPv6 host in brackets",
        "--host-serial is '1': a serial number has 13 letters and digits, this has 1",
        "--guest-serial is '2': a serial number has 13 letters and digits, this has 1",
        "--sock is 'tcp:x': a TCP address is tcp:HOST:PORT, an IPv6 host in brackets",
        "--sock is 'connect:': the socket's path is missing",
    ]
    assert mistakes(config(tmp_path, "[serve]\nwatch = 1\nrecord = 1\n")) == [
        "vhostcomm.toml: serve.record is 1",
        "vhostcomm.toml: serve.watch is 1",
    ]


def test_every_directory_without_a_file_is_reported(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "c.toml").write_text("x = 1\n")
    assert mistakes(tmp_path / "a", tmp_path / "b", tmp_path / "c.toml") == [
        "a: a directory without a *.toml file",
        "b: a directory without a *.toml file",
        "c.toml: unknown",
    ]


def test_sockets_of_two_guests_are_reported_with_all_other_mistakes(tmp_path: Path) -> None:
    same = '[guests.a]\nsock = "/x/a"\nbad = 1\n[guests.b]\nsock = "/x/a"\n[guests.c]\nsock = "/x/a"\n'
    path = config(tmp_path, f"{same}[serve]\nrecord = 1\n")
    assert mistakes(path, socks=["b=/x/b", "c=/x/c", "c=/x/d"]) == [
        "vhostcomm.toml: serve.record is 1",
        "vhostcomm.toml: guests.a.bad",
        "vhostcomm.toml: guests.b",
        "vhostcomm.toml: guests.c",
        "--sock c=/x/d: another guest is named 'c'",
    ]


def test_a_guest_with_an_invalid_name_or_socket_has_no_default_socket(tmp_path: Path) -> None:
    path = config(tmp_path, f"[guests.{'c' * 60}]\nsock = 1\n[guests.{'a' * 110}]\n[guests.{'b' * 60}]\nbad = 1\n")
    found = mistakes(path, environment={"RUNTIME_DIRECTORY": f"/{'r' * 50}"})
    assert [each.removeprefix("vhostcomm.toml: ")[:20] for each in found] == [
        f"guests.{'c' * 13}",
        "the name of [guests.",
        f"guests.{'b' * 13}",
        f"guests.{'b' * 13}",
    ]
    assert [each.endswith(".bad") for each in found] == [False, False, True, False]


def test_settings_that_exclude_each_other_are_reported_together(tmp_path: Path) -> None:
    path = config(tmp_path, '[serve]\ncontrol = "tcp:192.0.2.1:1"\nweb = "192.0.2.1:2"\n')
    excluded = [
        "vhostcomm.toml: serve.control is tcp:192.0.2.1:1",
        "vhostcomm.toml: serve.control is tcp:192.0.2.1:1",
        "vhostcomm.toml: serve.web is 192.0.2.1:2",
    ]
    assert mistakes(path) == excluded
    path.write_text(path.read_text() + "record = 1\n")
    assert mistakes(path) == ["vhostcomm.toml: serve.record is 1", *excluded]
    loaded = load(socks=["/x/a", "/x/b"], environment={})
    service = Service(record="one", qemu_host_api="127.0.0.1:1")
    sources = {"record": "--record", "qemu_host_api": "--qemu-host-api"}
    with pytest.raises(ConfigError) as caught:
        check(attrs.evolve(loaded, service=service, service_sources=sources))
    assert [each.partition(":")[0] for each in caught.value.reasons] == ["--record", "--qemu-host-api"]


def test_an_invalid_address_does_not_make_the_token_useless() -> None:
    flags = {"control": "tcp:host", "control-token": "0123456789abcdef"}
    with pytest.raises(ConfigError) as caught:
        load(flags=flags, environment={})
    assert [each[:25] for each in caught.value.reasons] == ["--control is 'tcp:host': "]
    with pytest.raises(ConfigError, match="--control-token has no effect without --control tcp:HOST:PORT"):
        load(flags=flags | {"control": "/x/control"}, environment={})


def test_only_mistakes_in_the_configuration_are_collected() -> None:
    found = Mistakes()
    found.check()
    with pytest.raises(VhostcommError, match="other"), found:
        raise VhostcommError("other")
    found.check()
    with found:
        raise ConfigError("b", "a")
    found.add("c", "b")
    with pytest.raises(ConfigError) as caught:
        found.check()
    assert caught.value.reasons == ("b", "a", "c")
    assert str(caught.value) == "3 mistakes in the configuration: b | a | c"
    assert caught.value.in_lines == "3 mistakes in the configuration:\n  b\n  a\n  c"
    assert (str(ConfigError("a")), ConfigError("a").in_lines) == ("a", "a")


def test_one_line_has_a_few_of_many_mistakes() -> None:
    many = [f"m{number}" for number in range(REASONS_SHOWN + 2)]
    assert str(ConfigError(*many[:REASONS_SHOWN])).endswith(f"m{REASONS_SHOWN - 2} | m{REASONS_SHOWN - 1}")
    assert str(ConfigError(*many)).startswith(f"{len(many)} mistakes in the configuration: m0 | m1 | ")
    assert str(ConfigError(*many)).endswith(f"m{REASONS_SHOWN - 1} | and 2 more")
    assert str(ServeError("a", "b")) == "2 reasons why guests can't be served: a | b"


def test_so_many_mistakes_are_kept_and_the_others_are_counted() -> None:
    found = Mistakes()
    found.add(*(f"m{number}" for number in range(KEPT + 2)), "m0")
    with found:
        raise ConfigError("m1", "other", more=3)
    with pytest.raises(ConfigError) as caught:
        found.check()
    error = caught.value
    assert error.reasons == tuple(f"m{number}" for number in range(KEPT))
    assert error.summary == f"{KEPT + 6} mistakes in the configuration"
    assert error.details[-2:] == (f"m{KEPT - 1}", "and 6 more")
    assert error.in_lines.endswith(f"\n  m{KEPT - 1}\n  and 6 more")
    assert str(error).endswith(f" | m{REASONS_SHOWN - 1} | and {KEPT + 6 - REASONS_SHOWN} more")


@pytest.mark.slow
def test_validate_prints_each_mistake_on_a_line(tmp_path: Path) -> None:
    path = config(tmp_path, "[host]\nserial = 'x'\nfoo = 1\n[guests.nas]\nserial = 'y'\nbar = 1\n")
    done = run_vhostcomm("config", "validate", path, env=ENVIRONMENT)
    assert (done.returncode, done.stdout) == (2, "")
    first, *others = done.stderr.splitlines()
    assert first == "vhostcomm: 4 mistakes in the configuration:"
    places = ["host.serial is 'x'", "host.foo", "guests.nas.serial is 'y'", "guests.nas.bar"]
    assert [each.split(": ")[1] for each in others] == places
    assert all(each.startswith(f"  {path}: ") for each in others)

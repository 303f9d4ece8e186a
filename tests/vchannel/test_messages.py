from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vchannel import (
    NEVER,
    TEXT_SIZE,
    CpuInfo,
    GuestInformation,
    HostVersion,
    Interface,
    Kind,
    MisuseError,
    NetworkDetail,
    NetworkResult,
    PayloadError,
    VmmVersion,
    decode_integer,
    decode_json,
    decode_text,
    encode_integer,
    encode_json,
    encode_text,
)
from vchannel.data import data_problem
from vchannel.errors import shorten


def test_text_counts_its_nul() -> None:
    assert encode_text("0000000000000") == b"0000000000000\0"
    assert len(encode_text("x" * TEXT_SIZE)) == 4032
    assert decode_text(b"with\0rest") == "with"
    assert decode_text(b"without") == "without"
    assert decode_text(b"\xffno") == r"\xffno"


def test_text_too_long_is_rejected() -> None:
    with pytest.raises(MisuseError, match="text of 4032 bytes: a frame carries at most 4031"):
        encode_text("x" * 4032)
    with pytest.raises(MisuseError, match="NUL inside"):
        encode_text("a\0b")


@pytest.mark.parametrize("value", [object(), float("nan"), "x" * 5000, "\ud800", {1: {2}}])
def test_values_that_json_cannot_write_are_rejected(value: object) -> None:
    with pytest.raises(MisuseError):
        encode_json(value)


@pytest.mark.parametrize("value", [True, 1.5, "1", 2**63, None])
def test_invalid_integers_are_not_sent(value: int) -> None:
    with pytest.raises(MisuseError, match="not a signed 64-bit integer"):
        encode_integer(value)


@given(st.integers(-(2**63), NEVER))
def test_integers_are_text(value: int) -> None:
    assert encode_integer(value) == str(value).encode() + b"\0"
    assert decode_integer(encode_integer(value)) == value


@pytest.mark.parametrize("data", [b"", b"soon\0", b"1.5\0", b"9223372036854775808\0", b"9" * 4000, "٣\0".encode()])
def test_invalid_integers_are_rejected(data: bytes) -> None:
    with pytest.raises(PayloadError) as caught:
        decode_integer(data)
    assert caught.value.field == "data"


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (HostVersion(), '{"buildnumber":69057,"smallfixnumber":0}'),
        (CpuInfo(), '{"cpuinfo":"QEMU, Virtual CPU, X86_64, 1","vcpu_num":1}'),
        (CpuInfo("a,,", 4), '{"cpuinfo":"a,,, 4","vcpu_num":4}'),
        (
            VmmVersion(timestamp=1650802981032),
            '{"id":"Virtualization","name":"Virtual Machine Manager","timestamp":1650802981032,"version":"2.6.5-12202"}',
        ),
        (NetworkResult(), '{"detail":[{"success":false,"type":"set_net"}]}'),
        (NetworkResult((NetworkDetail("x", success=True), NetworkDetail())), None),
    ],
)
def test_payloads(payload: HostVersion | CpuInfo | VmmVersion | NetworkResult, text: str | None) -> None:
    data = payload.to_data()
    if text is not None:
        assert data == text.encode() + b"\0"
    assert type(payload).from_data(data) == payload


@pytest.mark.parametrize(
    ("kind", "text", "field"),
    [
        (HostVersion, "[]", "data"),
        (HostVersion, '{"buildnumber":"69057","smallfixnumber":0}', "buildnumber"),
        (HostVersion, '{"buildnumber":true,"smallfixnumber":0}', "buildnumber"),
        (CpuInfo, '{"vcpu_num":1}', "cpuinfo"),
        (VmmVersion, '{"version":"1"}', "timestamp"),
        (NetworkResult, '{"detail":{}}', "detail"),
        (NetworkResult, '{"detail":[{"type":"x","success":1}]}', "detail[0].success"),
        (NetworkResult, '{"detail":[3]}', "detail[0]"),
    ],
)
def test_payloads_of_another_shape(
    kind: type[HostVersion | CpuInfo | VmmVersion | NetworkResult], text: str, field: str
) -> None:
    with pytest.raises(PayloadError) as caught:
        kind.from_data(encode_text(text))
    assert caught.value.field == field
    assert field in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "nul", "[" * 4000, "NaN", '{"a":-Infinity}', "1e999", '"\\ud800"', "1" * 4031]
)
def test_invalid_json_is_rejected(text: str) -> None:
    if text == "1" * 4031:  # a valid number: Python's limit of digits is larger than a frame
        assert decode_json(encode_text(text)) == int(text)
        return
    with pytest.raises(PayloadError, match=r"data is|not a JSON"):
        decode_json(encode_text(text))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_how_deep_json_may_be_nested(opening: str, closing: str) -> None:
    def nested(depth: int) -> bytes:
        return encode_text(opening * depth + "0" + closing * depth)

    assert json.dumps(decode_json(nested(64)), separators=(",", ":")).encode() + b"\0" == nested(64)
    for depth in (65, 600):
        with pytest.raises(PayloadError, match="nested too deep"):
            decode_json(nested(depth))


def test_brackets_in_text_do_not_count_as_nesting() -> None:
    value = {"text": '\\"' + "[{" * 500, "list": [[]] * 100}
    assert decode_json(encode_json(value)) == value


def information(http_port: object = 5000, ip: object = None) -> bytes:
    return encode_json({"data": {"dsm_setting": {"data": {"http_port": http_port}}, "ip": {"data": ip}}})


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (5000, 5000),
        ("5000", 5000),
        (None, None),
        ("", None),
        (0, None),
        (65536, None),
        (True, None),
        ("5e3", None),
        ([], None),
    ],
)
def test_http_port_is_read_tolerantly(value: object, read: int | None) -> None:
    assert GuestInformation.from_data(information(value)).http_port == read


def test_interfaces_are_read_tolerantly() -> None:
    interfaces = [
        {"name": "lo", "ip": "127.0.0.1"},
        {"name": "eth0"},
        {"name": "eth0", "ip": "2001:db8::1"},
        {"name": "eth1", "ip": 5},
        {"name": "eth1", "ip": "\x1b[31m"},
        {"ip": "192.0.2.1"},
        "eth2",
        None,
    ]
    found = GuestInformation.from_data(information(ip=interfaces))
    assert found.interfaces == (
        Interface("lo", "127.0.0.1"),
        Interface("eth0"),
        Interface("eth0", "2001:db8::1"),
        Interface("eth1"),
        Interface("eth1"),
    )
    assert found.address() == "2001:db8::1"
    assert found.address("eth1") is None
    assert found.document == json.loads(decode_text(information(ip=interfaces)))


@pytest.mark.parametrize("text", ["{}", '{"data":null}', '{"data":{"ip":[],"dsm_setting":{"data":[]}}}'])
def test_information_without_port_and_address(text: str) -> None:
    found = GuestInformation.from_data(encode_text(text))
    assert (found.http_port, found.interfaces) == (None, ())


def test_information_must_be_an_object() -> None:
    with pytest.raises(PayloadError, match="not a JSON object"):
        GuestInformation.from_data(b"[]\0")


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        (Kind.TEXT, b"no nul", "without its closing NUL"),
        (Kind.TEXT, b"a\0b\0", "NUL inside"),
        (Kind.TEXT, b"ab\xff\0", "not UTF-8 at byte 2"),
        (Kind.INTEGER, b"x\0", "not a decimal number"),
        (Kind.JSON, b"{\0", "not JSON"),
        (Kind.JSON, b"[" * 4000 + b"\0", "nested too deep"),
        (Kind.JSON, b"no nul", "without its closing NUL"),
    ],
)
def test_problems_of_data(kind: Kind, data: bytes, why: str) -> None:
    problem = data_problem(kind, data)
    assert problem is not None
    assert problem.field == "data"
    assert why in problem.why
    assert len(str(problem)) < 300
    assert str(problem).isascii() or "…" in str(problem)


@pytest.mark.parametrize("kind", Kind)
def test_no_data_is_no_problem(kind: Kind) -> None:
    assert data_problem(kind, b"") is None


@given(st.sampled_from(Kind), st.binary(max_size=4032))
def test_any_data_has_a_problem_or_none(kind: Kind, data: bytes) -> None:
    problem = data_problem(kind, data)
    assert problem is None or isinstance(problem, PayloadError)


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("fe80::1%any text", None),
        ("fe80::1%<script>", None),
        ("fe80::1%eth0\n", None),
        ("fe80::1%", None),
        ("fe80::1%sixteen-letters-", None),
    ],
)
def test_the_interface_behind_an_address(ip: str, expected: str | None) -> None:
    document = {"data": {"ip": {"data": [{"name": "eth0", "ip": ip}]}}}
    assert GuestInformation.from_data(json.dumps(document).encode() + b"\0").address() == expected


@pytest.mark.parametrize(
    "value", ["x" * 5000, b"\xff" * 5000, [[["deep"] * 99] * 99] * 99, {"a": {"b" * 500: 1}}, 10**3000, "é" * 80]
)
def test_a_value_in_a_message_is_short_and_on_one_line(value: object) -> None:
    text = shorten(value)
    assert len(text) <= 80
    assert text.removesuffix("…").isascii()
    assert text.isprintable()


def test_a_nested_value_is_not_written_out() -> None:
    """Formatting the whole value would take a thousand times as long as the shown part."""

    class Unwritable(list[object]):
        def __repr__(self) -> str:
            raise AssertionError("written out")

    assert shorten([[[[Unwritable()]]]]) == "[[[[...]]]]"


def test_more_interfaces_than_any_guest_has_are_left_out() -> None:
    lines = [{"name": f"eth{place}", "ip": "10.0.0.1"} for place in range(100)]
    found = GuestInformation.from_data(encode_json({"data": {"ip": {"data": lines}}}))
    assert [each.name for each in found.interfaces] == [f"eth{place}" for place in range(32)]

"""Data types at their limits, and the exact errors for data that can't be encoded or decoded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vchannel import (
    CpuInfo,
    GuestInformation,
    HostVersion,
    Kind,
    MisuseError,
    PayloadError,
    VmmVersion,
    decode_integer,
    decode_json,
    encode_integer,
    encode_json,
    encode_text,
)
from vchannel.data import data_problem
from vchannel.errors import shorten


@pytest.mark.parametrize("value", [-(2**63), -(2**63) + 1, 2**63 - 1])
def test_integers_at_their_limits(value: int) -> None:
    assert encode_integer(value) == b"%d\0" % value
    assert decode_integer(b"%d\0" % value) == value


@pytest.mark.parametrize(
    ("encode", "value", "why"),
    [
        (encode_integer, -(2**63) - 1, "-9223372036854775809 is not a signed 64-bit integer"),
        (encode_integer, 2**63, "9223372036854775808 is not a signed 64-bit integer"),
        (encode_text, "a\ud800", "text that isn't Unicode ('a\\ud800'): surrogates not allowed"),
        (encode_text, "a\0b", "text with a NUL inside ('a\\x00b'): the NUL closes it; send such data as bytes"),
        (encode_json, {1}, "JSON can't write {1}: Object of type set is not JSON serializable"),
    ],
)
def test_data_that_cannot_be_encoded_is_rejected(encode: Callable[[object], bytes], value: object, why: str) -> None:
    with pytest.raises(MisuseError) as caught:
        encode(value)
    assert str(caught.value) == why


def test_json_with_infinite_numbers_or_loops_is_rejected() -> None:
    with pytest.raises(MisuseError, match="Out of range float values are not JSON compliant"):
        encode_json(float("inf"))
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(MisuseError, match="Circular reference"):
        encode_json(loop)
    assert encode_json("é") == '"é"\0'.encode()


@pytest.mark.parametrize(
    ("decode", "data", "field", "value", "why"),
    [
        (decode_integer, b" x \0", "data", "x", "not a decimal number"),
        (decode_integer, b"-9223372036854775809\0", "data", "-9223372036854775809", "more than 64 bits"),
        (decode_integer, b"9223372036854775808\0", "data", "9223372036854775808", "more than 64 bits"),
        (decode_json, b"[" * 65, "data", "[" * 65, "JSON nested too deep"),
        (decode_json, b'"\\ud800"\0', "data", '"\\ud800"', "JSON with half of a UTF-16 pair"),
        (decode_json, b"{\0", "data", "{",
         "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (decode_json, b"NaN\0", "data", "NaN", "not a JSON number"),
        (decode_json, b"[1e999]\0", "data", "1e999", "not a JSON number"),
        (HostVersion.from_data, b"[]\0", "data", [], "not a JSON object"),
        (HostVersion.from_data, b"{}\0", "buildnumber", None, "not a JSON integer"),
        (HostVersion.from_data, b'{"buildnumber":1}\0', "smallfixnumber", None, "not a JSON integer"),
        (CpuInfo.from_data, b'{"vcpu_num":true}\0', "vcpu_num", True, "not a JSON integer"),
        (CpuInfo.from_data, b"5\0", "data", 5, "not a JSON object"),
        (VmmVersion.from_data, b'{"version":1}\0', "version", 1, "not a JSON string"),
        (GuestInformation.from_data, b"5\0", "data", 5, "not a JSON object"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_decoded_is_rejected(
    decode: Callable[[bytes], object], data: bytes, field: str, value: object, why: str
) -> None:
    with pytest.raises(PayloadError) as caught:
        decode(data)
    error = caught.value
    assert (error.field, error.value, error.why) == (field, value, why)
    assert str(error) == f"{field} is {shorten(value)}: {why}"


@pytest.mark.parametrize(
    ("kind", "data", "value", "why"),
    [
        (Kind.TEXT, b"0123456789abcdefg", b"123456789abcdefg", "text without its closing NUL"),
        (Kind.TEXT, b"a\0b\0", b"a\0b\0", "text with a NUL inside"),
        (Kind.TEXT, b"ab\xff" + b"c" * 20 + b"\0", b"\xff" + b"c" * 15, "not UTF-8 at byte 2"),
        (Kind.INTEGER, b"x\0", "x", "not a decimal number"),
    ],
)
def test_the_place_of_a_problem(kind: Kind, data: bytes, value: object, why: str) -> None:
    found = data_problem(kind, data)
    assert found is not None
    assert (found.field, found.value, found.why) == ("data", value, why)


def test_numbers_and_nesting_of_json() -> None:
    assert decode_json(b"[1.5,-2e3,7]\0") == [1.5, -2000.0, 7]
    beside = b"[],[]," * 50
    assert decode_json(b"[" + beside + b"[" * 63 + b"]" * 64)[-1]
    with pytest.raises(PayloadError, match="nested too deep"):
        decode_json(b"[" + beside + b"[" * 64 + b"]" * 65)


@pytest.mark.parametrize(("value", "port"), [("1", 1), (1, 1), ("65535", 65535), (65535, 65535), ("065535", None)])
def test_ports_at_their_limits(value: object, port: int | None) -> None:
    document = {"data": {"dsm_setting": {"data": {"http_port": value}}}}
    assert GuestInformation.from_data(encode_json(document)).http_port == port


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 78, repr("x" * 78)),
        ("x" * 80, "'" + "x" * 78 + "…"),
        ("x" * 81, "'" + "x" * 78 + "…"),
        ("é\n", r"'\xe9\n'"),
        (b"\xff", r"b'\xff'"),
        (["é"], r"['\xe9']"),
        (10**79, "1" + "0" * 79),
        (10**80, "1" + "0" * 78 + "…"),
        (None, "None"),
    ],
)
def test_values_in_messages_have_at_most_80_characters(value: object, text: str) -> None:
    assert shorten(value) == text


def test_a_long_text_of_a_short_limit_is_cut() -> None:
    assert shorten("abcdef", 5) == "'abc…"
    assert shorten("abc", 5) == "'abc'"
    assert shorten("a" * 5, 5) == "'aaa…"

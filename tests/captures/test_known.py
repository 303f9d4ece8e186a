from __future__ import annotations

import base64
import json
import random
import string
import sys
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vhostcomm.capture.redact_text import Redactor

SERIAL, ADDRESS, MAC = "1780PDN123456", "192.168.178.23", "02:11:32:2b:0f:e6"
ADDRESS6, UUID = "fd00::beef:7", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
KNOWN = f"{SERIAL} {ADDRESS} {MAC} {ADDRESS6} {UUID}"


def redacted(text: str) -> str:
    redactor = Redactor()
    redactor.learn(KNOWN)
    for each in SERIAL, ADDRESS, MAC, ADDRESS6, UUID:  # each gets the first placeholder of its kind
        redactor.text(each)
    return redactor.text(text)


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        # IPv4
        ("eth0192.168.178.23", "eth0192.0.2.1"),
        ("192-168-178-23.anna.quickconnect.to", "192-0-2-1.anna.quickconnect.to"),
        ("192_168_178_23", "192_0_2_1"),
        ("192 168 178 23", "192 0 2 1"),
        ("[192,168,178,23]", "[192,0,2,1]"),
        ('{"ip":[192,168,178,23]}', '{"ip":[192,0,2,1]}'),
        ('"192", "168", "178", "23"', '"192", "0", "2", "1"'),
        ("192%2E168%2e178.23", "192.0.2.1"),
        ("C0A8B217", "xxxxxxxx"),
        ("0xc0.0xa8.0xb2.0x17", "0xc0.0x00.0x02.0x01"),
        ("23.178.168.192.in-addr.arpa", None),
        ("3232281111", None),
        # serial numbers
        ("1780-PDN-123456", "REDA-CTE-D00001"),
        ("1780 pdn 123456", "REDA CTE D00001"),
        ("1780.PDN_12-34:56", "REDA.CTE_D0-00:01"),
        ("17%380PDN%3123456", "REDACTED00001"),
        ("x1780PDN123456y", "xREDACTED00001y"),
        ("31373830 50444e31 32333435 36", None),
        ("3137383050444e313233343536", "x" * 26),
        (encoded(SERIAL.encode()), None),
        (encoded(b"login=anna;sn=" + SERIAL.encode()), None),
        (encoded(SERIAL.encode()).rstrip("="), None),
        (encoded(encoded(SERIAL.encode()).encode()), None),
        (
            json.dumps({"raw": list(SERIAL.encode())}),
            json.dumps({"raw": list(b"REDACTED00001")}, separators=(",", ":")),
        ),
        (",".join(f"0x{each:02x}" for each in SERIAL.encode()), ",".join(["0xxx"] * 13)),
        (f"{tuple(ADDRESS.encode())}", f"({', '.join(['xx'] * 14)})"),
        # MAC addresses
        ("02 11 32 2B 0F E6", "02 00 00 00 00 01"),
        ("02%3A11%3a32:2b:0f:e6", "02:00:00:00:00:01"),
        ("2:11:32:2b:f:e6", "02:00:00:00:00:01"),
        ("0211.322b.0fe6", "0200.0000.0001"),
        ("0211322B-0FE6", "02000000-0001"),
        ("02_11_32_2b_0f_e6", "02_00_00_00_00_01"),
        (encoded(bytes.fromhex("0211322b0fe6")), None),
        ("[2,17,50,43,15,230]", "[2,0,0,0,0,1]"),
        # IPv6 addresses
        ("FD00:0:0:0:0:0:beef:7", "2001:db8::1"),
        ("fd00:0000:0000:0000:0000:0000:beef:0007", "2001:db8::1"),
        ("fd00--beef-7.ipv6-literal.net", "xxxx--xxxx-x.ipv6-literal.net"),
        ("fd0000000000000000000000beef0007", None),
        # UUIDs
        ("6ba7b810_9dad_11d1_80b4_00c04fd430c8", "00000000_0000_4000_8000_000000000001"),
        ("{6BA7B810-9DAD-11D1-80B4-00C04FD430C8}", "{00000000-0000-4000-8000-000000000001}"),
        ("6ba7b8109dad11d180b400c04fd430c8", "00000000000040008000000000000001"),
        (encoded(bytes.fromhex(UUID.replace("-", ""))), None),
    ],
)
def test_a_known_value_is_found_in_any_spelling(text: str, left: str | None) -> None:
    """The placeholder has the value's spelling; with None, the value must only be gone."""
    once = redacted(text)
    if left is None:
        assert not gone_wrong(text, once)
    else:
        assert once == left


def gone_wrong(text: str, left: str) -> list[str]:
    """Return runs of four letters and digits of the text that are still in their place."""
    return [
        text[at : at + 4]
        for at in range(min(len(text), len(left)) - 3)
        if text[at : at + 4].isalnum() and text[at : at + 4] == left[at : at + 4] and text[at : at + 4] != "0000"
    ]


@pytest.mark.parametrize("label", ["S/N", "s/n:", "S.N.", "SN#", "Serial No", "serial_number =", "Serial-Num:"])
def test_a_serial_number_behind_its_label_becomes_known(label: str) -> None:
    redactor = Redactor()
    assert redactor.text(f"{label} AB12-34567") == f"{label} REDA-CTED1"
    assert redactor.text("of ab1234567") == "of REDACTED1"


def test_known_value_that_is_a_prefix_of_another_is_found_at_the_end() -> None:
    redactor = Redactor()
    redactor.text("serial AB12345678")
    redactor.text("serial AB123456")
    assert redactor.text("of ab123456") == "of REDACTED2"


@example(separator='","', places=[1], lower=False, encode=json.dumps, around="")
@given(
    st.sampled_from(["", "-", " ", ":", ".", "_", " - ", "\\u002d", "%2d", '","']),
    st.lists(st.integers(1, 12), max_size=4),
    st.booleans(),
    st.sampled_from([str, quote, lambda text: encoded(text.encode()), lambda text: text.encode().hex(), json.dumps]),
    st.text("xyz :=/", max_size=4),
)
@pytest.mark.slow
def test_separators_case_and_encodings_combine(
    separator: str, places: list[int], lower: bool, encode: Callable[[str], str], around: str
) -> None:
    word = SERIAL.lower() if lower else SERIAL
    for place in sorted(set(places), reverse=True):
        word = word[:place] + separator + word[place:]
    text = f"{around} {encode(word)} {around}"
    once = redacted(text)
    assert encode(word) not in once
    assert not [part for part in ("PDN", "1780", "3456") if part in once.upper()]


def work(frames: list[str]) -> int:
    """Return the number of calls, of Python's functions and its built-in ones, to redact frames whose values are known."""
    events = 0

    def count(*_: object) -> None:
        nonlocal events
        events += 1

    redactor, before = Redactor(), sys.getprofile()
    sys.setprofile(count)
    try:
        for frame in frames:
            redactor.learn(frame)
        for frame in frames:
            redactor.text(frame)
    finally:
        sys.setprofile(before)
    return events // 2  # a call and its return


def serials(count: int) -> list[str]:
    """Return words that look like serial numbers and have no common prefix."""
    letters = random.Random(count)
    return [
        " ".join("".join(letters.choices(string.ascii_uppercase + string.digits, k=13)) for _ in range(280))
        for _ in range(count)
    ]


def labelled(count: int) -> list[str]:
    """Return serial numbers of many lengths with one common prefix, and a text in which it is everywhere."""
    sizes = [5 + frame * 20 for frame in range(count)]
    return [f"sn {'Z1' * size}B sn {'Z1' * (size + 10)}B {'Z1' * 2000}"[:4000] for size in sizes]


def addresses(count: int) -> list[str]:
    return [" ".join(f"10.{frame}.{word}.7" for word in range(250)) for frame in range(count)]


def encodings(count: int) -> list[str]:
    """Return serial numbers and their encodings."""
    return [f"{words} {encoded(words.encode())}" for words in serials(count)]


@pytest.mark.slow
@pytest.mark.parametrize("make", [serials, addresses, encodings, labelled])
def test_work_grows_with_the_text_alone(make: Callable[[int], list[str]]) -> None:
    """Eight times the frames and known values need about 8 times the calls; quadratic growth would need 64."""
    assert work(make(16)) < 10 * work(make(2))


@pytest.mark.slow
@pytest.mark.parametrize("make", [serials, addresses, encodings, labelled])
def test_work_grows_with_one_text(make: Callable[[int], list[str]]) -> None:
    assert work([" ".join(make(8))]) < 10 * work([" ".join(make(1))])

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vchannel import NIL_UUID
from vhostcomm.capture.redact_text import Redactor


@pytest.mark.parametrize(
    "text",
    [
        "no secret at 12:34:56, v7.2.1",
        "7.2.1-69057 2.6.5-12202 1650802981032 1648798789 9223372036854775807",
        "QEMU, Virtual CPU, X86_64, 2",
        "127.0.0.1 ::1 0.0.0.0 ::",
        "netmask 255.255.255.0, 0000000000000, 00:00:00:00:00:00, 000000000000",
        "00000000-0000-0000-0000-000000000000",
        "999.1.1.1 7.2.1.69057",
        "ABCDEFGHIJKLM virtualhost12 107374182400 1099511627776",
        "std::string, 2022-04-25 01:29:02",
        "serial port ttyS0, serial: none, snapshot20220425",
        json.dumps({"version": "7.2.1-69057", "when": 1650802981032, "http_port": 5000, "on": True, "x": None}),
    ],
)
def test_other_text_stays(text: str) -> None:
    assert Redactor().text(text).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # IPv4, with anything before and after it
        ("at 10.0.0.7:5000.", "at 192.0.2.1:5000."),
        ("inet addr:192.168.1.5  Bcast:192.168.1.255", "inet addr:192.0.2.1  Bcast:192.0.2.2"),
        ("tcp:10.0.0.7:5000", "tcp:192.0.2.1:5000"),
        ("10.0.0.7eth0", "192.0.2.1eth0"),
        ("v10.0.0.7", "v192.0.2.1"),
        ("host.10.0.0.7", "host.192.0.2.1"),
        ("10.0.0.7.in-addr.arpa", "192.0.2.1.in-addr.arpa"),
        ("IP 10.0.0.7.5000 > 10.0.0.8.53:", "IP 192.0.2.1.5000 > 192.0.2.2:"),
        ("host1.10.0.0.7", "host192.0.2.1"),
        ("010.000.000.007 10.0.0.7", "192.0.2.1 192.0.2.1"),
        ("a:b:10.0.0.7", "a:b:192.0.2.1"),
        # IPv6
        ("[fe80::1]:80", "[2001:db8::1]:80"),
        ("ip:fe80::1234", "ip:2001:db8::1"),
        ("fe80::1: unreachable", "2001:db8::1: unreachable"),
        ("fe80::1%eth0/64 FE80:0::1", "2001:db8::1%eth0/64 2001:db8::1"),
        ("vfe80::1 0fe80::1", "v2001:db8::1 02001:db8::1"),
        ("::ffff:10.0.0.7", "2001:db8::1"),
        ("fe80::1fe80::10", "2001:db8::12002001:db8::3"),
        ("fd00::aa:bb:cc:dd:ee:ff", "2001:db8::1"),
        # MAC
        ("aa:bb:cc:dd:ee:ff AA-BB-CC-DD-EE-FF", "02:00:00:00:00:01 02-00-00-00-00-01"),
        ("mac:aa:bb:cc:dd:ee:ff", "mac:02:00:00:00:00:01"),
        ("eth0aa:bb:cc:dd:ee:ffup", "eth002:00:00:00:00:01up"),
        ("aabbccddeeff aabb.ccdd.eeff", "020000000001 0200.0000.0001"),
        ("0211322b0fe6 MAC0211322b0fe6", "020000000001 MAC020000000001"),
        ("0211.322b.0fe6 00:11:32:12:34:56 001132123456", "0200.0000.0001 02:00:00:00:00:02 020000000002"),
        ("02:11:32:ff:fe:2b:0f:e6", "2001:db8::1"),
        ("02-11-32-ff-fe-2b-0f-e6 021132fffe2b0fe6", "02-00-00-00-00-00-00-01 0200000000000001"),
        ("80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:7b:cb:a1", "02" + ":00" * 18 + ":01"),
        # UUID
        ("vm6ba7b810-9dad-11d1-80b4-00c04fd430c8", "vm00000000-0000-4000-8000-000000000001"),
        (
            "6BA7B8109DAD11D180B400C04FD430C8 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "00000000000040008000000000000001 00000000-0000-4000-8000-000000000001",
        ),
        ("d41d8cd98f00b204e9800998ecf8427ed41d8cd98f00b204", "00000000000040008000000000000001"),
        # Serial numbers
        ("ABC1EFGHIJKLM", "REDACTED00001"),
        ("SN17A0PDN654321", "SNREDACTED00001"),
        ("SNABC1EFGHIJKLM", "SNREDACTED00001"),
        ("x17a0pdn654321y 17A0PDN654321", "xREDACTED00001y REDACTED00001"),
        ("2150abcdefg12", "REDACTED00001"),
        ("serial: 1234567890123 of 1234567890123", "serial: REDACTED00001 of REDACTED00001"),
        ('Serial Number="ab-12-cd", sn 123456', 'Serial Number="REDACTED1", sn REDACTED2'),
        # JSON
        ('{"a": "x\\n10.0.0.7", "b": ["\\tfe80::1"]}', '{"a":"x\\n192.0.2.1","b":["\\t2001:db8::1"]}'),
        ('{"10.0.0.7": "\\u0031\\u0030.0.0.7"}', '{"192.0.2.1":"192.0.2.1"}'),
        ('{"a": "\\u0031\\u0030.0.0.7', '{"a": "192.0.2.1'),
        ('{"a": "x\\n10.0.0.7', '{"a": "x\\n192.0.2.1'),
        ('"\\u005cu00310.0.0.7"', '"192.0.2.1"'),
        ('{"a": "{\\"serial\\": \\"AB1\\"}"}', '{"a":"{\\"serial\\":\\"REDACTED1\\"}"}'),
        ('{"serial": 1234567890123, "n": 1234567890123}', '{"serial":"REDACTED00001","n":"REDACTED00001"}'),
        ('{"sn": "1234567890123", "x": "at 1234567890123."}', '{"sn":"REDACTED00001","x":"at REDACTED00001."}'),
        ('{"vdsm_sn": ["AB1", {"a": "ab1"}], "dsn": 5}', '{"vdsm_sn":["REDACTED1",{"a":"REDACTED1"}],"dsn":5}'),
        ('{"HostSerial": "unknown", "a": "unknown"}', '{"HostSerial":"REDACTED1","a":"unknown"}'),
        ('{"serial": "0000000000000", "sn": 0, "x_sn": null}', '{"serial":"0000000000000","sn":0,"x_sn":null}'),
        ('{"a": "\\ud800 10.0.0.7", "\\u202e": 1.5}', '{"a":"\\ud800 192.0.2.1","\\u202e":1.5}'),
        ('{"a": "10.0.0.7", "a": "grün"}', '{"a":"grün"}'),
        ("[" * 3000 + '"10.0.0.7"' + "]" * 3000, "x" * 6010),
    ],
)
def test_doubtful_text_counts_as_a_secret(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown
    assert Redactor().text(shown) == shown


def test_many_addresses() -> None:
    redactor = Redactor()
    assert len({redactor.text(f"10.0.{high}.{low}") for high in range(4) for low in range(200)}) == 800


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.0.0.9 192.0.2.1", "192.0.2.2 192.0.2.1"),
        ("fe80::9 2001:db8::1", "2001:db8::2 2001:db8::1"),
        ("aa:bb:cc:dd:ee:ff 020000000001", "02:00:00:00:00:02 020000000001"),
        ("ABC1EFGHIJKLM xREDACTED00001x", "REDACTED00002 xREDACTED00001x"),
        (
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8 00000000-0000-4000-8000-000000000001",
            "00000000-0000-4000-8000-000000000002 00000000-0000-4000-8000-000000000001",
        ),
        ('["10.0.0.9", {"192.0.2.1": 1}]', '["192.0.2.2",{"192.0.2.1":1}]'),
        ('{"serial": "ABCD1234", "b": "REDACTED1"}', '{"serial":"REDACTED2","b":"REDACTED1"}'),
    ],
)
def test_a_placeholder_in_use_is_given_to_no_other(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown
    assert Redactor().text(shown) == shown


def test_a_binary_uuid_has_its_placeholder_too() -> None:
    redactor = Redactor()
    taken = bytes.fromhex("00000000000040008000000000000001")
    redactor.learn_uuid(taken)
    assert redactor.uuid(taken) == taken
    assert redactor.uuid(NIL_UUID) == NIL_UUID
    assert redactor.uuid(b"17A0PDN654321\0\0\0").hex() == "00000000000040008000000000000002"


def test_a_known_serial_number_is_found_in_any_form() -> None:
    redactor = Redactor()
    for serial in "kelvin1", "\u017ftrange2", "shor3", "000000000000", "REDACTED7":
        redactor.learn(serial, serial=True)
    assert redactor.text("aKELVIN1b \u212aelvin1 \u017fTRANGE2 strange2 shor3 000000000000 REDACTED7") == (
        "aREDACTED1b \u212aelvin1 REDACTED2 strange2 shor3 000000000000 REDACTED7"
    )


risky = st.lists(
    st.sampled_from(
        ["0", "1", "02", "10", "255", "fe80", "abcd", "2001", "db8", "serial", "sn", "REDACTED", "17A0PDN654321", "mac",
         "02:11:32:2b:0f:e6", "0211322b0fe6", "10.0.0.7", "fe80::1", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", ".", ":",
         "::", "-", " ", "=", '"', "{", "}", "[", "]", ",", "\\u0031", "\\", "K", "\u212a", "ß", "x", "\0", "\ud800"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


@given(st.one_of(risky, st.text(), risky.map(lambda text: json.dumps({"sn": text, text: [text, 1.5, 10**15]}))))
@example("{" * 900)
@example('{"a":' * 900 + "1" + "}" * 900)
def test_any_text_can_be_redacted_and_then_stays(text: str) -> None:
    once = Redactor().text(text)
    assert Redactor().text(once) == once


around = st.text(st.sampled_from("xyz XYZ:.-_=[]{}()/\\,;#@|'\t\n\u00fc\u2013"), max_size=6)


@given(
    around,
    st.sampled_from(
        [
            ("10.11.12.13", ["11.12", "12.13"]),
            ("fe80::a1b2:c3d4", ["fe80", "a1b2", "c3d4"]),
            ("02:a1:b2:c3:d4:e5", ["a1:b2", "d4:e5"]),
            ("02-A1-B2-C3-D4-E5", ["a1-b2", "d4-e5"]),
            ("02a1b2c3d4e5", ["a1b2", "d4e5"]),
            ("02a1.b2c3.d4e5", ["02a1", "b2c3", "d4e5"]),
            ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", ["6ba7b810", "9dad", "00c04fd430c8"]),
            ("6ba7b8109dad11d180b400c04fd430c8", ["6ba7b810", "00c04fd430c8"]),
            ("17a0PDN654321", ["17a0", "4321"]),
        ]
    ),
    around,
    st.booleans(),
)
def test_no_secret_is_left_beside_any_text(
    before: str, secret: tuple[str, list[str]], after: str, in_json: bool
) -> None:
    whole, parts = secret
    text = before + whole + after
    redacted = Redactor().text(json.dumps({text: [text]}) if in_json else text).lower()
    assert not [part for part in parts if part in redacted]


@given(st.binary(max_size=60))
def test_any_data_can_be_redacted_and_then_stays(data: bytes) -> None:
    once = Redactor().data(data)
    assert Redactor().data(once) == once

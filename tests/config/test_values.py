"""Each kind of value: accepted spellings and their result, and rejected ones."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from vchannel import NEVER
from vhostcomm.config import values
from vhostcomm.config.values import Kind, choice, number

BIG = "9" * 400


@pytest.mark.parametrize(
    ("parse", "given", "made"),
    [
        (values.name, "a", "a"),
        (values.name, "n" * 64, "n" * 64),
        (values.name, "_A-1.b", "_A-1.b"),
        (values.serial, " 1234abc567890 ", "1234ABC567890"),
        (values.serial, 1234567890123, "1234567890123"),
        (values.mac, "02.11-32:aa0FE6", "02:11:32:aa:0f:e6"),
        (values.uuid_text, " 6BA7B8109DAD11D180B400C04FD430C8 ", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        (values.uuid_of, "6BA7B810-9DAD-11D1-80B4-00C04FD430C8", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        (values.uuid_of, "nas", ""),
        (values.text, "ü" * (values.TEXT_LIMIT // 2), "ü" * (values.TEXT_LIMIT // 2)),
        (values.text, "x" * values.TEXT_LIMIT, "x" * values.TEXT_LIMIT),
        (values.seconds, 1, 1.0),
        (values.seconds, "0.25", 0.25),
        (values.seconds, 999999.5, 999999.5),
        (values.deadline, " Never ", NEVER),
        (values.deadline, datetime(2030, 1, 1, tzinfo=UTC), 1893456000),
        (values.deadline, datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 1893456000),
        (values.deadline, datetime(2030, 1, 1), 1893456000),  # noqa: DTZ001 - UTC, unless it says otherwise
        (values.deadline, date(2030, 1, 1), 1893456000),
        (values.deadline, " 1 ", 1),
        (values.deadline, str(-NEVER - 1), -NEVER - 1),
        (values.deadline, "123456789", 123456789),
        (values.deadline, "1234567", 1234567),
        (values.mode, 0o660, 0o660),
        (values.mode, "0o600", 0o600),
        (values.mode, " 777 ", 0o777),
        (values.size, 5, 5),
        (values.size, "1", 1),
        (values.size, "2k", 2 << 10),
        (values.size, " 3 MiB ", 3 << 20),
        (values.size, "4GB", 4 << 30),
        (values.size, "1T", 1 << 40),
        (values.size, "999999999999999", 999999999999999),
        (values.boolean, True, True),
        (values.boolean, False, False),
        (values.token, "!~" * 8, "!~" * 8),
        (values.token, "a" * 256, "a" * 256),
        (values.string, " ", " "),
        (values.path, "/x", "/x"),
        (values.strings, ["a", "b"], ("a", "b")),
        (values.paths, ["/a", "b"], ("/a", "b")),
        (values.group, "00044", "44"),
        (values.group, 0, "0"),
        (values.group, "kvm", "kvm"),
        *((values.boolean, word, True) for word in ("yes", "TRUE", " on ", "1")),
        *((values.boolean, word, False) for word in ("no", "False", "off", "0")),
        (number(-5, 7).parse, "-5", -5),
        (number(-5, 7).parse, 7, 7),
        (number(0, 10**20 - 1).parse, "9" * 20, 10**20 - 1),
        (choice("json", "auto").parse, " JSON ", "json"),
    ],
)  # fmt: skip
def test_valid_values_are_accepted(parse: Any, given: object, made: object) -> None:
    found = parse(given)
    assert found == made
    assert type(found) is type(made)


@pytest.mark.parametrize(
    ("parse", "given", "why"),
    [
        *((parse, given, why)
          for parse in (values.name, values.serial, values.mac, values.text, values.deadline,
                        values.mode, values.size, values.token, values.string, values.path,
                        values.group, choice("a", "b").parse)
          for given, why in (("", "it is empty"), (1.5, "it must be text in quotes"), (None, "it must be text in quotes"))),
        *((values.name, given, "a name has 1 to 64") for given in ("n" * 65, ".a", "a/b", "é", "a\n", "-a b")),
        (values.serial, "1234ABC56789", "13 letters and digits, this has 12"),
        (values.serial, "1234ABC56789é", "only letters and digits"),
        (values.serial, "1234ABC56789-", "only letters and digits"),
        (values.serial, True, "text in quotes"),
        *((values.mac, given, "six pairs") for given in ("02113200000", "0211320000011", ":021132000001", "0211320000g1")),
        (values.uuid_text, "6ba7b810-9dad-11d1-80b4-00c04fd430c", "32 hexadecimal digits, with dashes after the 8th"),
        (values.text, "a\tb", "unprintable"),
        (values.text, "ü" * (values.TEXT_LIMIT // 2) + "xx", f"{values.TEXT_LIMIT // 2 * 2 + 2} bytes are more than fit"),
        *((values.seconds, given, "not a time in seconds")
          for given in (0, -1, True, None, "", "soon", "nan", "inf", 1000000, 1e6, int(BIG), BIG, [1])),
        *((values.deadline, given, "neither never") for given in ("soon", "2030-13-01", "20301301", "1.5")),
        (values.deadline, "1" * 21, "not a whole number"),  # it must not be read as a date of the year 1111
        (values.deadline, NEVER + 1, f"it must be {-NEVER - 1} to {NEVER}"),
        (values.deadline, str(-NEVER - 2), f"it must be {-NEVER - 1} to {NEVER}"),
        (values.deadline, True, "text in quotes"),
        *((values.mode, given, "not a file mode") for given in ("66", "00660", "8660", "0680", 0o10660, "0o", "x")),
        *((values.mode, given, "the owner needs to read and write") for given in ("0460", "0260", "066", 0o466)),
        *((values.size, given, "a size is a whole number") for given in ("0", 0, "0k", "-1", "1x", "k", "1kk", "1" * 16, "1 0")),
        *((values.boolean, given, "it must be yes or no") for given in ("2", "ja", "y", "", 1, 1.5, None)),
        *((values.token, given, "16 to 256") for given in ("a" * 15, "a" * 257, "a" * 15 + " ", "a" * 16 + "é", "a" * 16 + "\n")),
        (values.path, "a\0b", "a path can't contain a NUL"),
        *((parse, given, why) for parse in (values.strings, values.paths)
          for given, why in (("a", "a list of texts"), ([1], "text in quotes"), ([""], "it is empty"))),
        (values.paths, ["a\0"], "NUL"),
        *((values.group, given, f"a group's number is 0 to {2**32 - 2}") for given in (-1, "-1", 2**32 - 1, "0" * 11, BIG)),
        *((values.group, given, "neither a group's name nor its number") for given in (" ", "a:b", "a\tb", "²")),
        (values.group, True, "text in quotes"),
        *((number(-5, 7).parse, given, "it must be -5 to 7") for given in (-6, "8", "9" * 20)),
        *((number(-5, 7).parse, given, "not a whole number") for given in ("1.0", "+1", "1" * 21, "one", "--1", "", 2.5, True, None)),
        (choice("json", "auto").parse, "x", "it must be one of json, auto"),
    ],
)  # fmt: skip
def test_invalid_values_are_rejected(parse: Any, given: object, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        parse(given)


@pytest.mark.parametrize(
    ("kind", "value", "shown", "toml"),
    [
        (values.SIZE, 64 << 20, "64M", '"64M"'),
        (values.SIZE, 3 << 40, "3T", '"3T"'),
        (values.SIZE, 5 << 30, "5G", '"5G"'),
        (values.SIZE, 1 << 10, "1k", '"1k"'),
        (values.SIZE, 1025, "1025", "1025"),
        (values.SIZE, 0, "0", "0"),
        (values.SECONDS, 10.0, "10", "10"),
        (values.SECONDS, 0.5, "0.5", "0.5"),
        (values.DEADLINE, NEVER, "never", '"never"'),
        (values.DEADLINE, 5, "5", "5"),
        (values.MODE, 0o660, "0660", '"0660"'),
        (values.MODE, 0o6, "0006", '"0006"'),
        (values.BOOLEAN, True, "yes", "true"),
        (values.BOOLEAN, False, "no", "false"),
        (values.PATHS, ("a", "b"), "a, b", '["a", "b"]'),
        (values.TEXT, 'a"b', 'a"b', '"a\\"b"'),
        (number(1, 9), 3, "3", "3"),
        (number(1, 2**40), 1650802981, "1650802981", "1650802981"),
    ],
)
def test_values_are_shown_and_written(kind: Kind, value: object, shown: str, toml: str) -> None:
    assert (kind.show(value), kind.toml(value)) == (shown, toml)


def test_a_deadline_without_a_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        for given in (datetime(2030, 1, 1), date(2030, 1, 1), "2030-01-01"):  # noqa: DTZ001 - that is the test
            assert values.deadline(given) == 1893456000
    finally:
        monkeypatch.undo()
        time.tzset()


def test_choices_are_named_in_help_and_errors() -> None:
    made = choice("debug", "info", "error")
    assert made.parse(" INFO ") == "info"
    with pytest.raises(ValueError, match=r"^it must be one of debug, info, error$"):
        made.parse("warning")
    assert (made.word, made.words, made.choices) == (
        "debug|info|error",
        "`debug`, `info` or `error`",
        ("debug", "info", "error"),
    )
    assert (number(2, 5).word, number(2, 5).words) == ("N", "a whole number, 2 to 5")

"""The file that records a freeze for the daemon's successor."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhostcomm.guest.debt import FILE_MAX, Debt, format_debt, parse_debt
from vhostcomm.guest.evidence import Moment

NOW = Moment(5.0, 1e9)


@given(st.text(max_size=200), st.floats(0, 2e9))
def test_debt_is_unchanged_after_writing_and_reading(by: str, since: float) -> None:
    debt = Debt(7, by, Moment(1.0, since), Moment(99.0, since + 30))
    read = parse_debt(format_debt("nas", debt), NOW)
    assert (read.by, read.since.wall, read.until) == (by, since, NOW), "the thaw is not due at once"
    assert read.number == 0, "not every thaw settles the debt"


def test_the_record_of_a_freeze() -> None:
    debt = Debt(7, "backup", Moment(1.0, 100.0), Moment(2.0, 130.0))
    data = format_debt("nas", debt)
    assert json.loads(data) == {"guest": "nas", "by": "backup", "frozen": 100.0, "until": 130.0}
    assert data.endswith(b"}\n")
    found = Debt(0, "backup", Moment(NOW.at, 100.0), NOW, "a daemon before this one froze it")
    assert parse_debt(data.ljust(FILE_MAX), NOW) == found


@pytest.mark.parametrize("since", [0, 100, 253_402_300_799])
def test_times_at_the_limits_are_accepted(since: int) -> None:
    assert parse_debt(json.dumps({"by": "x", "frozen": since}).encode(), NOW).since.wall == since


@given(st.binary(max_size=200))
def test_other_bytes_are_rejected(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it is not the record of a freeze$|^the time .* is out of range$"):
        parse_debt(data, NOW)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"null", b'{"by": 1, "frozen": 1}', b'{"by": "x"}', b'{"by": "x", "frozen": true}',
        b'{"by": "x", "frozen": -1}', b'{"by": "x", "frozen": NaN}', b'{"by": "x", "frozen": Infinity}',
        b'{"by": "x", "frozen": 1' + b"0" * 400 + b"}", b'{"by": "x", "frozen": 1}' + b" " * 4096,
        b'{"by": "x", "frozen": 1}'.ljust(FILE_MAX + 1), b"[" * 4000,
        b'{"by": "\\ud800", "frozen": 1e99}', b'{"by": "x", "frozen": 253402300800}', b'{"frozen": 1}',
        b'{"by": "x", "frozen": "1"}',
    ],
)  # fmt: skip
def test_invalid_records_are_rejected(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it is not the record of a freeze$|^the time .* is out of range$"):
        parse_debt(data, NOW)

"""The file of a freeze that outlives its daemon."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhostcomm.guest import Debt, DebtError, Moment, format_debt, parse_debt

NOW = Moment(5.0, 1e9)


@given(st.text(max_size=200), st.floats(0, 2e9))
def test_it_is_read_as_it_was_written(by: str, since: float) -> None:
    debt = Debt(7, by, Moment(1.0, since), Moment(99.0, since + 30))
    read = parse_debt(format_debt("nas", debt), NOW)
    assert (read.by, read.since.wall, read.until) == (by, since, NOW), "and the thaw is due now"
    assert read.number == 0, "so that any thaw settles it"


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DebtError):
        parse_debt(data, NOW)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"null", b'{"by": 1, "frozen": 1}', b'{"by": "x"}', b'{"by": "x", "frozen": true}',
        b'{"by": "x", "frozen": -1}', b'{"by": "x", "frozen": NaN}', b'{"by": "x", "frozen": Infinity}',
        b'{"by": "x", "frozen": 1' + b"0" * 400 + b"}", b'{"by": "x", "frozen": 1}' + b" " * 4096, b"[" * 4000,
        b'{"by": "\\ud800", "frozen": 1e99}',
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(DebtError):
        parse_debt(data, NOW)

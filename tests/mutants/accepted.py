"""Survivors that behave as the original code does, with the reason."""

from __future__ import annotations

import re
from typing import Final

ACCEPTED: Final = {
    r"-    if type\(evidence\) is Frame and self.channel is _R": "the general path does the same, only slower",
    r"-        case _:\n-            pass": "other evidence changes nothing either way",
    r"-        value = None\n\+        value = \"\"": "neither is an object of JSON",
    r"-    self\._killing = False\n\+    self\._killing = None": "only its truth is tested",
    r"-    self\._paused_why = \"\"\n\+    self\._paused_why = None": "found_paused sets it before it is read",
    r"-    self\._waiting(: trio\.CancelScope \| None|) = None\n\+    self\._waiting\1 = \"\"": "only its truth is tested",
    r"-    problem = \"\"\n\+    problem = None": "only its truth is tested",
    r"-.*usedforsecurity=": "matters only on a host in FIPS mode",
    r"section_of\(machine\.value, None": "neither is one of SECTIONS",
    r"cast\(None, value\)": "it returns the value",
    r"(ensure_ascii|allow_nan)=None": "only its truth is tested",
    r"-( .*)<= MAX_DEPTH:\n\+\1< MAX_DEPTH:": "so few brackets are never too deep",
    r"-        return 0\n\+        return 1\n     depth = ": "neither is too deep",
    r"-( +self\._(?:in_step|repeats_ids) = )False.*\n\+\1None": "only its truth is tested",
    r"-( +self\._(?:until_due|scanned) = ).*0.*\n\+\1.*None": "only its truth is tested before it is set",
    r"-    self\._scanned = 0 .*\n\+    self\._scanned = 1": "it is set before it is read",
    r"-.*zip\(HEADER_FIELDS, header, ": "both have eleven fields",
    r"\+    return length if (1 <=|0 <) length": "a length of 0 counts as 0 either way",
    r"-    self\._ids\[request\.request_id\] = None": "only its keys are used",
    r"-            self\._found\[each\] = None": "only its keys are used",
    r"listed\.sock = Value\(None, None\)": "the source of an invalid socket is not read",
    r"-    chosen = \"\"\n\+    chosen = None": "only its truth is tested",
    r"-    kind, _, what = .*\.partition\(.*\n\+.*\.rpartition\(": "a token has no spaces",
    r"read\(SIZE_LIMIT\)\n\+.*read\(None\)": "a longer file was rejected: they differ only if it grows meanwhile",
    r"-.*get_close_matches\(.*, n=1\)": "only the nearest match is used",
    r"-.*_identity\(config\.guest_layers\.get\(\"\", \{\}\), \"\", source\)\)\n\+.*, None, source": "only its truth is tested",
    r"-.*_KINDS\.get\(stat\.S_IFMT\(found\.st_mode\), ": "the table has every kind",
    r"-.*user, at, host = self\.destination\.rpartition": "an address with two @ is rejected",
    r"-.*textwrap\.wrap\(.*80, ": "only the width of comments",
    r"int\.__eq__\(self, None\)": "the other operand compares instead",
    r"type\(None\) is not bytes": "the bytes of bytes are the same object",
    r"refusal\(header, convincing=None\)": "only its truth is tested",
    r"find_header\(self\._buffer, self\._offset (- 1|\+ 2), .*usual": "no usual header begins within a byte of an odd one",
    r"usual=True\) (<= 0|< 1)": "the search begins after 0",
    r"found (> 0|>= 1):": "a header's bytes follow each skipped piece, so the search begins after 0",
    r"stop (>=|> start -) ": "an empty search, or one of the same bytes again",
    r"find_header\(self\._buffer, start - self\._scanned": "the bytes before were searched, and have no header",
    r"last = found \+ HEADER_SIZE (\+ 1|- 2)": "no header of the other kind begins a byte before or later",
    r"found = -2": "only its sign is tested",
    r"secrets\.randbits\(ID_BITS\) or 2": "0 is never seen",
    r"-.*2\.0 \*\* min\(self\.probes - 1, \d+\)": "the interval has reached its maximum before",
}
"""Survivors that are not counted: a regular expression for their difference, and the reason."""


def accepted(difference: str) -> str:
    """Why a survivor is accepted; "" if it is not."""
    return next((why for pattern, why in ACCEPTED.items() if re.search(pattern, difference)), "")


def is_only_words(difference: str) -> bool:
    """Return whether a mutant differs only in a text: mutmut changes its case or puts it between XX."""
    old, new = (
        "".join(line[1:] for line in difference.splitlines() if re.match(rf"\{sign}(?!{re.escape(sign * 2)})", line))
        for sign in "-+"
    )
    return old.casefold() == new.replace("XX", "").casefold() and old != new

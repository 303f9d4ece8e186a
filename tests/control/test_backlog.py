"""Events that wait for a client that reads slowly."""

from __future__ import annotations

from typing import Any

from vhostcomm.control.backlog import BACKLOG_BYTES, Backlog


def taken(backlog: Backlog) -> list[tuple[str, dict[str, Any]]]:
    found = []
    while event := backlog.take():
        found.append(event)
    return found


def test_one_guest_pushes_out_no_other_guests_events() -> None:
    backlog = Backlog()
    backlog.put("quiet", "ready", {"guest": "quiet"})
    for number in range(14_000):
        backlog.put("loud", "rebooted", {"guest": "loud", "number": number})
    backlog.put("quiet", "gone", {"guest": "quiet"})
    assert taken(backlog) == [
        ("ready", {"guest": "quiet"}),
        ("rebooted", {"guest": "loud", "number": 13_999, "times": 14_000}),
        ("gone", {"guest": "quiet"}),
    ]
    assert (backlog.size, bool(backlog)) == (0, False)


def test_kinds_of_a_guest_are_in_the_order_of_their_last_events() -> None:
    backlog = Backlog()
    for kind in ("rebooted", "ready", "rebooted"):
        backlog.put("nas", kind, {})
    assert taken(backlog) == [("ready", {}), ("rebooted", {"times": 2})]


def test_guests_take_turns() -> None:
    backlog = Backlog()
    for guest in ("a", "b"):
        for kind in ("connected", "ready"):
            backlog.put(guest, kind, {"guest": guest})
    assert [(facts["guest"], kind) for kind, facts in taken(backlog)] == [
        ("a", "connected"), ("b", "connected"), ("a", "ready"), ("b", "ready"),
    ]  # fmt: skip


def test_bytes_are_limited_and_losses_are_counted_by_guest() -> None:
    backlog = Backlog()
    why = "x" * 100_000
    for number in range(20):
        backlog.put(f"g{number}", "gone", {"why": why})
        backlog.put(f"g{number}", "gone", {"why": why})
        assert backlog.size <= BACKLOG_BYTES
    found = taken(backlog)
    kept, lost = [each for each in found if each[0] == "gone"], [each for each in found if each[0] == "lost"]
    assert len(kept) == 10
    assert all(facts["times"] == 2 for _, facts in kept)
    assert lost == [("lost", {"guest": f"g{number}", "event": "lost", "count": 2}) for number in range(10, 20)]

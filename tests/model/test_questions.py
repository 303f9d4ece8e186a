"""Questions that are allowed in each state, questions that wait, and times of probes."""

from __future__ import annotations

from tests.model.models import ABSENT, CONNECTED, PAUSED, READY, SILENT, WAYS, model_of
from vchannel import GuestCommand
from vhostcomm.guest.evidence import Connected, Disconnected, Paused, ProbeSent, Resumed, Silence, StopAsked
from vhostcomm.guest.model import HEARD_RECENTLY, Model
from vhostcomm.guest.questions import SETTLE, Kind, Probe, Refuse, Send, Wait, kind_of, may_ask, probe_due


def test_questions_that_are_allowed_in_each_state() -> None:
    now = 3.0
    up, unheard, silent = model_of(*WAYS[READY]), model_of(*WAYS[CONNECTED]), model_of(*WAYS[SILENT])
    assert [may_ask(up, kind, now) for kind in Kind] == [Send()] * 5
    assert may_ask(up, Kind.CHANGING, 1 + HEARD_RECENTLY + 1) == Probe(SILENT)
    assert may_ask(up, Kind.READING, 1 + HEARD_RECENTLY + 1) == Send()
    resumed = model_of(*WAYS[READY], Resumed())
    assert may_ask(resumed, Kind.CHANGING, now) == Probe(SILENT), "an earlier state may have been loaded"
    for kind in Kind:
        assert may_ask(unheard, kind, now) == (Send() if kind in {Kind.PROBE, Kind.THAW} else Probe(CONNECTED))
    assert [may_ask(silent, kind, now) for kind in Kind] == [
        Send(), Send(), Send(), Refuse(SILENT), Wait(silent.probe_again, SILENT),
    ]  # fmt: skip
    assert may_ask(silent, Kind.CHANGING, silent.probe_again) == Probe(SILENT)
    assert may_ask(silent, Kind.CHANGING, silent.probe_again, probing=True) == Wait(float("inf"), SILENT)


def test_calls_wait_for_a_qemu_that_may_reconnect() -> None:
    gone = model_of(*WAYS[READY], Disconnected(1))
    assert may_ask(gone, Kind.ENDING, 2.5) == Wait(2 + SETTLE, ABSENT)
    assert may_ask(gone, Kind.ENDING, 2 + SETTLE) == Refuse(ABSENT)
    assert may_ask(gone, Kind.CHANGING, 2.5) == Refuse(ABSENT)
    off = model_of(*WAYS[READY], StopAsked("somebody", "power-off"), Disconnected(1))
    assert may_ask(off, Kind.ENDING, 3.5) == Refuse(ABSENT), "the guest has powered off, so waiting is useless"


def test_a_pause_has_a_cause_and_queues_no_questions() -> None:
    model = model_of(*WAYS[READY], Paused("disk full", "resume"))
    assert may_ask(model, Kind.ENDING, 2.5) == Wait(2 + SETTLE, PAUSED)
    assert may_ask(model, Kind.ENDING, 2 + SETTLE) == Refuse(PAUSED)
    assert [may_ask(model, kind, 2.5) for kind in (Kind.PROBE, Kind.READING, Kind.CHANGING)] == [Refuse(PAUSED)] * 3
    assert may_ask(model, Kind.THAW, 99.0) == Send()
    assert not probe_due(model, 99.0, 0.0)


def test_waits_end_at_their_limit() -> None:
    gone, paused = model_of(*WAYS[READY], Disconnected(1)), model_of(*WAYS[READY], Paused("", ""))
    for kind in (Kind.ENDING, Kind.THAW):
        assert may_ask(gone, kind, 2.5) == Wait(2 + SETTLE, ABSENT)
    assert may_ask(paused, Kind.ENDING, 2.5) == Wait(2 + SETTLE, PAUSED)
    rebooting = model_of(*WAYS[READY], StopAsked("somebody", "reboot"), Disconnected(1))
    assert may_ask(rebooting, Kind.ENDING, 3.5) == Wait(3 + SETTLE, ABSENT)


def test_when_a_guest_is_probed() -> None:
    up, unheard, silent = model_of(*WAYS[READY]), model_of(*WAYS[CONNECTED]), model_of(*WAYS[SILENT])
    assert (probe_due(up, 1.9, 1.0), probe_due(up, 2.0, 1.0)) == (False, True)
    for model in (unheard, silent):
        model.take(ProbeSent(1), 10.0)
        again, kinds = model.probe_again, (Kind.PROBE, Kind.READING, Kind.CHANGING)
        assert (probe_due(model, again - 0.1, 1.0), probe_due(model, again, 1.0)) == (False, True)
        why = CONNECTED if model is unheard else SILENT
        assert may_ask(model, Kind.ENDING, again - 0.1, probing=True) == Wait(float("inf"), why)
        may = [may_ask(model, kind, again - 0.1) for kind in kinds]
        assert may == ([Refuse(why)] * 3 if model is unheard else [Send(), Send(), Refuse(why)])
        assert may_ask(unheard, Kind.PROBE, unheard.probe_again) == Send()
    up.take(ProbeSent(1), 1.0)
    assert not probe_due(up, 2.0, 0.5), "the last question is not overdue yet"
    assert not probe_due(up, up.probe_again - 0.1, 0.5)
    assert probe_due(up, up.probe_again, 0.5)
    assert probe_due(model_of(Connected(1)), 0.0, 1.0)
    assert not probe_due(Model(), 99.0, 0.0)


def test_a_resumed_guest_is_probed_at_once() -> None:
    """The time without an answer before the pause does not count."""
    model = model_of(*WAYS[READY], *(ProbeSent(1), Silence(1)) * 7)
    assert not probe_due(model, 20.0, 1.0)
    model.take(Paused("disk full", "resume"), 20.0)
    model.take(Resumed(), 21.0)
    assert probe_due(model, 21.0, 1.0)


def test_kinds_of_commands() -> None:
    kinds: dict[Kind, set[GuestCommand]] = {}
    for command in GuestCommand:
        kinds.setdefault(kind_of(command), set()).add(command)
    assert kinds[Kind.PROBE] == {GuestCommand.GET_INFORMATION}
    assert kinds[Kind.THAW] == {GuestCommand.FS_UNFREEZE}
    assert kinds[Kind.ENDING] == {GuestCommand.POWEROFF, GuestCommand.REBOOT}
    assert GuestCommand.FS_FREEZE in kinds[Kind.CHANGING]
    assert kind_of(99) is Kind.CHANGING, "an unknown command may do harm"

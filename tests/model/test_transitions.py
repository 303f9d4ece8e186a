"""The model of a guest: each transition, and invariants for any order of evidence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.models import ABSENT, CONNECTED, PAUSED, PROBED_IN_VAIN, READY, SILENT, WAYS, model_of
from vhostcomm.guest.debt import Debt
from vhostcomm.guest.evidence import (
    Answer,
    Booted,
    Connected,
    Disconnected,
    Evidence,
    Frame,
    FreezeSent,
    Moment,
    Paused,
    ProbeSent,
    Reset,
    Resumed,
    Silence,
    Stop,
    StopAsked,
    ThawAnswered,
)
from vhostcomm.guest.model import (
    HEARD_RECENTLY,
    PROBE_INTERVAL_MAX,
    PROBE_TIMEOUT,
    TRANSITIONS,
    Model,
    Pause,
    State,
)
from vhostcomm.guest.questions import Kind, Probe, Send, may_ask, probe_due


@pytest.mark.parametrize(
    ("before", "evidence", "after"),
    [
        (ABSENT, (Connected(1),), CONNECTED),
        (ABSENT, (Reset(),), ABSENT),
        (CONNECTED, (Frame(1),), READY),
        (CONNECTED, (Booted(1),), READY),
        (CONNECTED, (Answer(1),), READY),
        (CONNECTED, PROBED_IN_VAIN, CONNECTED),
        (CONNECTED, (Reset(),), CONNECTED),
        (CONNECTED, (Disconnected(1),), ABSENT),
        (CONNECTED, (Connected(2),), CONNECTED),
        (READY, (Frame(1),), READY),
        (READY, (Booted(1),), READY),
        (READY, PROBED_IN_VAIN, SILENT),
        (READY, (ProbeSent(1), Frame(1), Silence(1)), READY),
        (READY, (ProbeSent(1), Answer(1), Silence(1)), READY),
        (READY, (Reset(),), CONNECTED),
        (READY, (Disconnected(1),), ABSENT),
        (READY, (Connected(2),), CONNECTED),
        (SILENT, (Frame(1),), READY),
        (SILENT, (Booted(1),), READY),
        (SILENT, (Answer(1),), READY),
        (SILENT, (Reset(),), CONNECTED),
        (SILENT, (Disconnected(1),), ABSENT),
        (SILENT, (Connected(2),), CONNECTED),
        # An earlier connection proves nothing.
        (CONNECTED, (Frame(0), Answer(0), Booted(0)), CONNECTED),
        (READY, (ProbeSent(0), Silence(0), Disconnected(0)), READY),
        # Requests to the guest are no evidence of life.
        (CONNECTED, (StopAsked("", ""), FreezeSent("", Moment(9, 9)), ThawAnswered(1)), CONNECTED),
        (CONNECTED, (Paused("disk full", "resume"),), PAUSED),
        (READY, (Paused("disk full", "resume"), Resumed()), READY),
        (ABSENT, (Paused("disk full", "resume"),), ABSENT),
        (ABSENT, (Paused("disk full", "resume"), Connected(1)), PAUSED),
        (READY, (Paused("disk full", "resume"), Disconnected(1), Connected(2)), CONNECTED),
    ],
)  # fmt: skip
def test_each_transition(before: State, evidence: tuple[Evidence, ...], after: State) -> None:
    assert model_of(*WAYS[before], *evidence).state is after


def test_every_entry_of_the_table_is_a_transition() -> None:
    """Evidence of the entry's kind alone causes each entry's transition."""
    made: dict[type, Evidence] = {
        Connected: Connected(2), Disconnected: Disconnected(1), Reset: Reset(), Frame: Frame(1),
        Booted: Booted(1), Answer: Answer(1),
    }  # fmt: skip
    for state, row in TRANSITIONS.items():
        for kind, after in row.items():
            if kind is not Silence:
                assert model_of(*WAYS[state], made[kind]).channel is after, (state, kind)


def test_end_of_a_connection_or_boot_resets_what_was_known() -> None:
    up, gone = model_of(*WAYS[READY]), model_of(*WAYS[READY], Disconnected(1))
    assert (up.heard, gone.heard) == (1.0, None)
    silent = model_of(*WAYS[SILENT])
    assert (silent.probes, silent.probe_again > 2.0) == (1, True)
    silent.take(Reset(), 4.0)
    assert (silent.heard, silent.probes, silent.probe_again) == (None, 0, 0.0)
    resumed = model_of(*WAYS[SILENT], Paused("disk full", "resume"), Resumed())
    assert (resumed.heard, resumed.probes, resumed.probe_again) == (None, 0, 0.0)
    asking = model_of(Connected(1), Frame(1, asks=True))
    assert asking.has_asked
    asking.take(Booted(1), 2.0)
    assert asking.has_asked is False


def test_the_budget_of_probes_shrinks_and_recovers() -> None:
    model, now, gaps = model_of(*WAYS[CONNECTED]), 1.0, []
    for _ in range(12):
        assert probe_due(model, now, 0.0)
        model.take(ProbeSent(1), now)
        model.take(Silence(1), now + PROBE_TIMEOUT)
        gaps.append(model.probe_again - now)
        now = model.probe_again
    assert gaps == sorted(gaps)
    assert gaps[-1] == PROBE_TIMEOUT + PROBE_INTERVAL_MAX
    model.take(Answer(1), now)
    assert (model.probes, model.probe_again) == (0, 0.0)


def test_a_thaw_is_owed_until_one_was_answered_that_was_sent_later() -> None:
    model = model_of(*WAYS[READY], FreezeSent("backup", Moment(99, 99)))
    for each in (Disconnected(1), Connected(2), Reset(), Booted(2), Frame(2), ThawAnswered(0)):
        model.take(each, 10.0, 10.0)
        assert model.debt is not None, each
    assert model.debt is not None
    assert (model.debt.until.at, model.debt.by) == (10.0, "backup"), "the thaw is not due as soon as the guest is back"
    model.take(ThawAnswered(1), 11.0)
    assert model.debt is None


CONNECTIONS = st.integers(0, 2)
EVIDENCE: st.SearchStrategy[Evidence] = st.one_of(
    st.builds(Connected, st.integers(1, 2)), st.builds(Disconnected, CONNECTIONS),
    st.builds(Frame, CONNECTIONS, st.booleans()), st.builds(Booted, CONNECTIONS), st.builds(Answer, CONNECTIONS),
    st.builds(ProbeSent, CONNECTIONS), st.builds(Silence, CONNECTIONS), st.just(Reset()),
    st.builds(Paused, st.text(max_size=3), st.just("")), st.just(Resumed()),
    st.builds(StopAsked, st.just(""), st.sampled_from(["power-off", "reboot"])),
    st.builds(FreezeSent, st.just(""), st.builds(Moment, st.floats(0, 1e6), st.just(0.0))),
    st.builds(ThawAnswered, st.integers(0, 3)),
)  # fmt: skip
HISTORIES = st.lists(st.tuples(EVIDENCE, st.floats(0, 100)), max_size=40)


@given(HISTORIES, st.floats(-1e9, 1e9))
def test_any_order_of_evidence(history: list[tuple[Evidence, float]], wall: float) -> None:
    """Any evidence, in any order, at any times."""
    model, other, now = Model(), Model(), 0.0
    freezes, settled = 0, 0
    for evidence, later in history:
        now += later
        before = model.channel
        live = getattr(evidence, "connection", model.connection) == model.connection
        model.take(evidence, now, 0.0)
        other.take(evidence, now, wall)
        # The wall clock must not affect decisions.
        assert [may_ask(model, kind, now) for kind in Kind] == [may_ask(other, kind, now) for kind in Kind]
        assert probe_due(model, now, 1.0) == probe_due(other, now, 1.0)
        # There are no transitions outside the table.
        assert model.channel in {before, TRANSITIONS[before].get(type(evidence), before)}
        assert model.channel is before or live or isinstance(evidence, Connected)
        # Harmful commands need a recent sign of life of the same boot.
        if may_ask(model, Kind.CHANGING, now) == Send():
            assert model.state is READY
            assert model.heard is not None
            assert now - model.heard <= HEARD_RECENTLY
        if isinstance(evidence, Connected | Reset | Resumed) and model.channel is not ABSENT:
            assert model.heard is None
        # After a freeze was sent, a thaw is owed until a later thaw is answered.
        freezes += isinstance(evidence, FreezeSent)
        if isinstance(evidence, ThawAnswered) and evidence.covers >= freezes:
            settled = freezes
        assert (model.debt is not None) == (freezes > settled)
        # Waits and probes are limited.
        assert model.probe_again <= now + PROBE_TIMEOUT + PROBE_INTERVAL_MAX


ASKS = Frame(1, asks=True)


@pytest.mark.parametrize(
    ("history", "began"),
    [
        ((Connected(1), Frame(1), Frame(1)), 1),
        ((Connected(1), Connected(2)), 1),
        ((Connected(1), Reset()), 1),
        ((Reset(),), 0),
        # A boot notification means another start if a question preceded it, but not after notifications of the same start.
        ((Connected(1), Frame(1), Booted(1)), 1),
        ((Connected(1), ASKS, Booted(1)), 2),
        ((Connected(1), Frame(1), ASKS, Booted(1)), 3),
        ((Connected(1), ASKS, Frame(1), Booted(1)), 3),
        ((Connected(1), ASKS, ProbeSent(1), Silence(1), Frame(1), Booted(1)), 5),
        ((Connected(1), ASKS, Booted(1), Booted(1)), 2),
        ((Connected(1), ASKS, Reset(), Booted(1)), 3),
        ((Connected(1), ASKS, Reset(), Frame(1), Booted(1)), 3),
        ((Connected(1), Frame(1), ProbeSent(1), Answer(1)), 1),
        ((Connected(1), Paused("a", "b"), Paused("c", "d")), 2),
        ((Connected(1), Paused("a", "b"), Paused("a", "b"), Resumed()), 3),
        ((Connected(1), Frame(1), StopAsked("", "reboot"), FreezeSent("", Moment(9, 9)), ThawAnswered(1)), 1),
    ],
)  # fmt: skip
def test_a_state_begins_with_its_evidence(history: tuple[Evidence, ...], began: int) -> None:
    model = Model()
    for second, each in enumerate(history):
        model.take(each, float(second), 100.0 + second)
    assert (model.entered, model.evidence) == (Moment(float(began), 100.0 + began), history[began])


def test_a_frame_of_another_connection_is_no_sign_of_life() -> None:
    model = model_of(*WAYS[READY])
    for now in range(2, 20):
        model.take(Frame(0), float(now))
    assert may_ask(model, Kind.CHANGING, 1 + HEARD_RECENTLY) == Send()
    assert may_ask(model, Kind.CHANGING, 1.1 + HEARD_RECENTLY) == Probe(SILENT)
    model.take(Frame(1), 20.0)
    assert may_ask(model, Kind.CHANGING, 20 + HEARD_RECENTLY) == Send()


def test_sign_of_life_counts_for_one_connection_and_boot() -> None:
    for ends in (Disconnected(1), Connected(2), Reset()):
        model = model_of(*WAYS[READY])
        model.take(ends, 2.0)
        assert model.heard is None, ends


def test_a_sign_of_life_at_the_time_of_the_probe_answers_it() -> None:
    model = model_of(*WAYS[READY])
    model.take(ProbeSent(1), 5.0)
    model.take(Frame(1), 5.0)
    model.take(Silence(1), 5.0 + PROBE_TIMEOUT)
    assert model.state is READY


def test_unanswered_probes_come_at_growing_intervals() -> None:
    model, gaps = model_of(*WAYS[CONNECTED]), []
    for now in range(100, 109):
        model.take(ProbeSent(1), float(now))
        gaps.append(model.probe_again - now - PROBE_TIMEOUT)
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    signs: tuple[Evidence, ...] = Frame(1), Frame(1), Answer(1), Booted(1)
    for now, sign in enumerate(signs, 200):
        model.take(sign, float(now))
        for gap in (1, 2):
            model.take(ProbeSent(1), now + gap / 4)
            assert model.probe_again == now + gap / 4 + PROBE_TIMEOUT + gap, sign
    for again in (Connected(1), Reset()):
        model.take(again, 300.0)
        assert probe_due(model, 300.0, 1.0), "a starting guest is not probed at once"
        model.take(ProbeSent(1), 300.0)
        assert model.probe_again == 300 + PROBE_TIMEOUT + 1


def test_stop_counts_for_one_boot_and_connection() -> None:
    asked = (*WAYS[READY], StopAsked("somebody", "reboot"))
    stop = model_of(*asked, Disconnected(1), Reset()).stop
    assert stop == Stop("somebody", "reboot", Moment(2.0, 0.0))
    assert model_of(*asked, Booted(1)).stop == stop, "the notification belonged to the previous start"
    for forgets in ((Connected(2),), (Reset(),), (ASKS, Booted(1))):
        assert model_of(*asked, *forgets).stop is None, forgets


def test_a_pause_begins_once() -> None:
    model = model_of(Connected(1), Paused("disk full", "free"), Paused("disk fuller", "free more"))
    assert model.pause == Pause("disk fuller", "free more", Moment(1.0, 0.0))


@pytest.mark.parametrize(
    ("back", "why"),
    [
        ((Disconnected(1), Connected(2)), "its connection ended"),
        ((Reset(),), "its machine was reset"),
        ((ASKS, Booted(1)), "it started again"),
        ((Booted(1),), ""),
        ((Disconnected(1), Reset()), ""),
    ],
)
def test_debt_of_a_guest_that_is_back_is_due(back: tuple[Evidence, ...], why: str) -> None:
    model = Model()
    for second, each in enumerate(
        (*WAYS[READY], FreezeSent("one", Moment(50.0, 150.0)), FreezeSent("two", Moment(9.0, 109.0)), *back)
    ):
        model.take(each, float(second), 100.0 + second)
    now = Moment(3.0 + len(back), 103.0 + len(back))
    assert model.debt == Debt(2, "two", Moment(2.0, 102.0), *((now, why) if why else (Moment(9.0, 109.0),)))
    model.take(Connected(3), 9.0)
    assert model.debt is not None
    assert model.debt.why == (why or "its time is over"), "the debt was not due before"


def test_a_debt_is_adopted_and_settled_by_any_thaw() -> None:
    model, debt = Model(), Debt(0, "backup", Moment(1.0, 1.0), Moment(2.0, 2.0))
    model.adopt(debt)
    assert model.debt == debt
    model.take(ThawAnswered(0), 3.0)
    assert model.debt is None

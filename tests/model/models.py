"""Models of guests in each state."""

from __future__ import annotations

from vhostcomm.guest.evidence import Connected, Evidence, Frame, ProbeSent, Silence
from vhostcomm.guest.model import Model, State

ABSENT, CONNECTED, READY, SILENT, PAUSED = State

PROBED_IN_VAIN = ProbeSent(1), Silence(1)

WAYS: dict[State, tuple[Evidence, ...]] = {
    ABSENT: (),
    CONNECTED: (Connected(1),),
    READY: (Connected(1), Frame(1)),
    SILENT: (Connected(1), Frame(1), *PROBED_IN_VAIN),
}
"""The evidence that leads to each state of a guest's channel."""


def model_of(*evidence: Evidence) -> Model:
    model = Model()
    for second, each in enumerate(evidence):
        model.take(each, float(second))
    return model

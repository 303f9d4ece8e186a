"""What a guest may be asked now: send, find out first, wait, or refuse with the reason."""

from __future__ import annotations

from enum import Enum
from typing import Final

from attrs import frozen

from vchannel import Command, GuestCommand
from vhostcomm.guest.model import HEARD_RECENTLY, Model, State

SETTLE: Final = 3.0
"""Seconds in which a lost QEMU reconnects (it tries every second), or a short pause ends: who can wait does so for these."""


POWER_OFF: Final = "power-off"
"""How a stop is called that is meant to end the guest's QEMU."""


class Kind(Enum):
    """What a question may do if it is carried out later than meant, be it by the next boot."""

    PROBE = "probe"
    """Nothing, and it is the one that is asked to find out whether the guest is up."""
    THAW = "thaw"
    """Good: it gets through to a guest that nobody has heard."""
    READING = "reading"
    """Nothing but noise."""
    CHANGING = "changing"
    """Harm, such as the next boot powering itself off."""
    ENDING = "ending"
    """The same; and whoever asks this can wait for a guest that isn't up yet."""


_KINDS: Final[dict[Command, Kind]] = {
    GuestCommand.GET_INFORMATION: Kind.PROBE,
    GuestCommand.FS_UNFREEZE: Kind.THAW,
    GuestCommand.TEST: Kind.READING,
    GuestCommand.GET_IP: Kind.READING,
    GuestCommand.GET_UPTIME: Kind.READING,
    GuestCommand.GET_DSM_SETTING: Kind.READING,
    GuestCommand.GET_FIRMWARE_VERSION: Kind.READING,
    GuestCommand.GET_DEFAULT_PW: Kind.READING,
    GuestCommand.POWEROFF: Kind.ENDING,
    GuestCommand.REBOOT: Kind.ENDING,
}


def kind_of(command: Command) -> Kind:
    """The kind of a command; nobody knows what an unknown one does."""
    return _KINDS.get(command, Kind.CHANGING)


class Why(Enum):
    """Why a guest can't be asked."""

    ABSENT = "absent"
    """QEMU is not connected."""
    UNHEARD = "unheard"
    """The guest gave no sign of life since it was connected or reset."""
    SILENT = "silent"
    """The guest gave one, but does not answer."""
    PAUSED = "paused"
    """The machine is paused."""


@frozen
class Send:
    """Ask."""


@frozen
class Probe:
    """Ask the harmless question first, then look again."""

    why: Why


@frozen
class Wait:
    """Look again after the next evidence, and not later than `until`."""

    until: float
    why: Why


@frozen
class Refuse:
    """Don't ask."""

    why: Why


Verdict = Send | Probe | Wait | Refuse


def may_ask(model: Model, kind: Kind, now: float, *, probing: bool = False) -> Verdict:
    """What to do with a question.

    Args:
        model: the guest's.
        kind: of the question.
        now: seconds on the model's clock.
        probing: the harmless question is under way.
    """
    patient = kind in {Kind.ENDING, Kind.THAW}
    match model.state:
        case State.ABSENT:
            return _settling(model.entered.at, now, Why.ABSENT, patient=patient and not _gone_for_good(model))
        case State.PAUSED if kind is not Kind.THAW:
            assert model.pause is not None
            return _settling(model.pause.since.at, now, Why.PAUSED, patient=patient)
        case _:
            pass
    return Send() if _is_askable(model, kind, now) else _find_out(model, now, patient=patient, probing=probing)


def _is_askable(model: Model, kind: Kind, now: float) -> bool:
    match kind:
        case Kind.THAW:
            return True
        case Kind.PROBE:
            return model.channel is not State.CONNECTED or now >= model.probe_again
        case Kind.READING:
            return model.channel is not State.CONNECTED
        case _:
            return model.channel is State.READY and model.heard is not None and now - model.heard <= HEARD_RECENTLY


def _find_out(model: Model, now: float, *, patient: bool, probing: bool) -> Verdict:
    why = Why.UNHEARD if model.channel is State.CONNECTED else Why.SILENT
    if probing:
        return Wait(float("inf"), why)
    if now >= model.probe_again:
        return Probe(why)
    return Wait(model.probe_again, why) if patient else Refuse(why)


def _settling(since: float, now: float, why: Why, *, patient: bool) -> Verdict:
    return Wait(since + SETTLE, why) if patient and now < since + SETTLE else Refuse(why)


def _gone_for_good(model: Model) -> bool:
    """Whether its QEMU ended after a power-off, so it doesn't come back by itself."""
    return model.stop is not None and model.stop.how == POWER_OFF


def probe_due(model: Model, now: float, age: float) -> bool:
    """Whether somebody who wants to know should have the guest asked.

    Args:
        model: the guest's.
        now: seconds on the model's clock.
        age: seconds for which the last sign of life is new enough.
    """
    match model.state:
        case State.ABSENT | State.PAUSED:
            return False
        case State.READY:
            stale = model.heard is None or now - model.heard >= age
            return stale and now >= model.probe_again
        case _:
            return now >= model.probe_again

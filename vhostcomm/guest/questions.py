"""Decide about a question to a guest: send it, probe first, wait, or refuse with the reason.

The reason is the guest's state; SILENT also stands for a READY guest without a recent sign of life.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from attrs import frozen

from vchannel import Command, GuestCommand
from vhostcomm.guest.model import HEARD_RECENTLY, Model, State

SETTLE: Final = 3.0
"""Seconds in which a lost QEMU reconnects (every second) or a short pause ends. Patient requests wait so long."""


POWER_OFF: Final = "power-off"
"""The name of a stop that ends the guest's QEMU."""


class Kind(Enum):
    """What a question may do if the guest gets it later than intended, even after its next boot."""

    PROBE = "probe"
    """Nothing; this is the harmless question that finds out whether the guest is up."""
    THAW = "thaw"
    """Good: it may thaw a guest that gave no sign of life."""
    READING = "reading"
    """Nothing but noise."""
    CHANGING = "changing"
    """Harm, such as a power-off after the next boot."""
    ENDING = "ending"
    """The same harm; but its client can wait for a guest that isn't up yet."""


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
    """Return the kind of a command; an unknown command may do harm."""
    return _KINDS.get(command, Kind.CHANGING)


@frozen
class Send:
    """Send the question."""


@frozen
class Probe:
    """Send the harmless question first, then decide again."""

    why: State


@frozen
class Wait:
    """Decide again after the next evidence, at the latest at `until`."""

    until: float
    why: State


@frozen
class Refuse:
    """Do not send the question."""

    why: State


Verdict = Send | Probe | Wait | Refuse


def may_ask(model: Model, kind: Kind, now: float, *, probing: bool = False) -> Verdict:
    """Decide about a question. `now` is in seconds of the model's clock.

    `probing` is True while the harmless question waits for its answer.
    """
    patient = kind in {Kind.ENDING, Kind.THAW}
    match model.state:
        case State.ABSENT:
            return _settling(model.entered.at, now, State.ABSENT, patient=patient and not _gone_for_good(model))
        case State.PAUSED if kind is not Kind.THAW:
            assert model.pause is not None
            return _settling(model.pause.since.at, now, State.PAUSED, patient=patient)
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
    why = State.CONNECTED if model.channel is State.CONNECTED else State.SILENT
    if probing:
        return Wait(float("inf"), why)
    if now >= model.probe_again:
        return Probe(why)
    return Wait(model.probe_again, why) if patient else Refuse(why)


def _settling(since: float, now: float, why: State, *, patient: bool) -> Verdict:
    return Wait(since + SETTLE, why) if patient and now < since + SETTLE else Refuse(why)


def _gone_for_good(model: Model) -> bool:
    """Return whether QEMU ended after a power-off, so that it will not reconnect."""
    return model.stop is not None and model.stop.how == POWER_OFF


def probe_due(model: Model, now: float, age: float) -> bool:
    """Return whether the guest should be probed for a client that wants to know its state.

    A sign of life of at most `age` seconds is sufficient; `now` is in seconds of the model's clock.
    """
    match model.state:
        case State.ABSENT | State.PAUSED:
            return False
        case State.READY:
            stale = model.heard is None or now - model.heard >= age
            return stale and now >= model.probe_again
        case _:
            return now >= model.probe_again

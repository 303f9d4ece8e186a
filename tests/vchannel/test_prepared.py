"""Answers that are prepared once for many questions."""

from __future__ import annotations

import pytest

from tests.vchannel.feeding import host
from tests.vchannel.test_connection import SERIAL
from vchannel import (
    HostCommand,
    MisuseError,
    PreparedAnswer,
    Request,
)


def test_prepared_is_the_same_as_made_each_time() -> None:
    prepared = PreparedAnswer(HostCommand.GUEST_SERIAL, SERIAL)
    end = host()
    for request in (
        Request.of(HostCommand.GUEST_SERIAL, guest_uuid=bytes(range(16)), guest_id=0),
        Request.of(HostCommand.GUEST_SERIAL, b"data"),
    ):
        assert end.answer(request, prepared) == end.send(request.reply(SERIAL))


def test_prepared_repeats_odd_fields_too() -> None:
    end = host()
    end.receive_data(Request.of(HostCommand.GUEST_SERIAL).raw)
    plain = end.next_event()
    assert isinstance(plain, Request)
    odd = plain.raw[:56] + b"\2\0\0\0\0\0\0\0" + plain.raw[64:]
    end.receive_data(odd)
    request = end.next_event()
    assert isinstance(request, Request)
    answer = end.answer(request, PreparedAnswer(HostCommand.GUEST_SERIAL, SERIAL))
    assert answer == end.send(request.reply(SERIAL))
    assert answer[56:64] == b"\2\0\0\0\0\0\0\0"


def test_prepared_answer_for_another_command_is_rejected() -> None:
    with pytest.raises(MisuseError, match="an answer to command 13 for a request of 5"):
        host().answer(Request.of(HostCommand.GUEST_SERIAL), PreparedAnswer(HostCommand.HOST_SERIAL, SERIAL))


def test_response_to_a_notification_is_rejected() -> None:
    notification = Request.of(HostCommand.GUEST_SERIAL, needs_response=False)
    with pytest.raises(MisuseError, match="asks for no response: look at its needs_response"):
        notification.reply()
    with pytest.raises(MisuseError, match="asks for no response"):
        host().answer(notification, PreparedAnswer(HostCommand.GUEST_SERIAL, SERIAL))

"""A connection's events, and its errors for mistakes of its caller."""

from __future__ import annotations

import sys

import pytest

from tests.vchannel.feeding import Feed, drain, facts, guest, host, whole
from vchannel import (
    NEED_DATA,
    Connection,
    GuestCommand,
    HostCommand,
    MisuseError,
    Request,
    Response,
    SkipReason,
    UnsolicitedResponse,
    encode_text,
)
from vchannel.outstanding import IDS_KEPT

SERIAL = encode_text("0000000000000")


def test_a_question_and_its_answer(feed: Feed) -> None:
    asking, answering = guest(), host()
    question = Request.of(HostCommand.GUEST_SERIAL, guest_uuid=bytes(range(16)), guest_id=3)
    (asked,) = feed(answering, asking.send(question))
    assert isinstance(asked, Request)
    assert (asked.command, asked.data, asked.needs_response) == (HostCommand.GUEST_SERIAL, b"", True)
    assert (asked.request_id, asked.guest_uuid, asked.guest_id) == (question.request_id, bytes(range(16)), 3)

    (answer,) = feed(asking, answering.send(asked.reply(SERIAL)))
    assert isinstance(answer, Response)
    assert answer.request is question
    assert answer.text == "0000000000000"
    assert answer.problem is None
    repeated = ["request_id", "guest_uuid", "guest_id", "command", "sub_command", "reserved"]
    assert [getattr(answer.frame, name) for name in repeated] == [getattr(asked.frame, name) for name in repeated]
    assert (answer.frame.needs_response, answer.frame.response_length) == (0, 14)
    assert asking.waiting == ()


def test_several_frames_in_order(feed: Feed) -> None:
    asking = guest()
    sent = [Request.of(command) for command in HostCommand]
    events = feed(host(), b"".join(map(asking.send, sent)))
    assert [(event.command, event.request_id) for event in events if isinstance(event, Request)] == [
        (each.command, each.request_id) for each in sent
    ]


@pytest.mark.parametrize("number", [0, 1, 6, 18, 200, -1, 2**31 - 1, -(2**31)])
def test_unknown_commands_pass_through(feed: Feed, number: int) -> None:
    (asked,) = feed(host(), Request.of(number, b"\xff").raw)
    assert isinstance(asked, Request)
    assert type(asked.command) is int
    assert asked.command == number
    assert (asked.data, asked.problem) == (b"\xff", None)
    assert asked.reply().frame.command == number


def test_commands_have_a_namespace_for_each_direction(feed: Feed) -> None:
    """Command 10 has different meanings in the two directions."""
    (from_guest,) = feed(host(), Request.of(10).raw)
    (from_host,) = feed(guest(), Request.of(10).raw)
    assert isinstance(from_guest, Request)
    assert isinstance(from_host, Request)
    assert from_guest.command is HostCommand.NETWORK_RESULT
    assert from_host.command is GuestCommand.GET_INFORMATION


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"\xffsoon\0", "not UTF-8"), (b"1648798789", "without its closing NUL"), (b"soon\0", "not a decimal number")],
)
def test_odd_data_is_reported_with_the_request(feed: Feed, data: bytes, why: str) -> None:
    end = host()
    odd = Request.of(HostCommand.GUEST_TIMESTAMP, data)
    good = Request.of(HostCommand.GUEST_TIMESTAMP, b"1648798789\0")
    first, second = feed(end, odd.raw + good.raw)
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert first.data == data
    assert first.problem is not None
    assert first.problem.field == "data"
    assert why in str(first.problem)
    assert second.problem is None


def test_odd_data_is_reported_with_the_response(feed: Feed) -> None:
    end = host()
    question = Request.of(GuestCommand.GET_INFORMATION)
    end.send(question)
    (answer,) = feed(end, question.reply(b'{"data":\0').raw)
    assert isinstance(answer, Response)
    assert answer.problem is not None
    assert "not JSON" in str(answer.problem)


@pytest.mark.parametrize("command", list(GuestCommand))
def test_data_of_an_unsolicited_answer_is_not_parsed(feed: Feed, command: GuestCommand) -> None:
    """A guest can send such answers without end, and parsing the data would cost more than everything else."""
    end = host()
    (event,) = feed(end, Request.of(command).reply(b'{"data":\0').raw)
    assert isinstance(event, UnsolicitedResponse)
    assert event.response.problem is None


# -- matching of responses and requests


def test_responses_match_requests_by_id_in_any_order(feed: Feed) -> None:
    end = host()
    first, second = Request.of(GuestCommand.GET_IP), Request.of(GuestCommand.GET_IP)
    end.send(first)
    end.send(second)
    events = feed(end, second.reply(b"2").raw + first.reply(b"1").raw)
    assert [(event.request, event.data) for event in events if isinstance(event, Response)] == [
        (second, b"2"),
        (first, b"1"),
    ]


def without_id(request: Request, data: bytes) -> bytes:
    return bytes(8) + request.reply(data).raw[8:]


def test_responses_without_ids_match_by_command(feed: Feed) -> None:
    end = host()
    asked = [Request.of(command) for command in (GuestCommand.GET_IP, GuestCommand.GET_UPTIME, GuestCommand.GET_IP)]
    for each in asked:
        end.send(each)
    events = feed(end, b"".join(without_id(asked[place], bytes([place])) for place in (1, 0, 2)))
    assert [event.request for event in events if isinstance(event, Response)] == [asked[1], asked[0], asked[2]]
    assert end.waiting == ()


def unsolicited(feed: Feed, end: Connection, raw: bytes) -> str:
    (event,) = feed(end, raw)
    assert isinstance(event, UnsolicitedResponse)
    assert event.raw == raw
    return event.why


def test_answer_without_a_request_is_unsolicited(feed: Feed) -> None:
    end = host()
    assert "no request for its command" in unsolicited(feed, end, Request.of(GuestCommand.GET_IP).reply().raw)


def test_answer_with_another_command_is_unsolicited(feed: Feed) -> None:
    end = host()
    question = Request.of(GuestCommand.GET_IP)
    end.send(question)
    wrong = Request.of(GuestCommand.GET_UPTIME, request_id=question.request_id)
    assert "request for command 2" in unsolicited(feed, end, wrong.reply().raw)
    assert end.waiting == (question,)


def test_a_late_answer_does_not_match_another_request(feed: Feed) -> None:
    end = host()
    late, waiting = Request.of(GuestCommand.GET_INFORMATION), Request.of(GuestCommand.GET_INFORMATION)
    end.send(late)
    assert end.forget(late)
    assert not end.forget(late)
    end.send(waiting)
    assert "given up" in unsolicited(feed, end, late.reply(b"{}\0").raw)
    assert end.waiting == (waiting,)


def test_unknown_id_is_unsolicited_once_ids_are_repeated(feed: Feed) -> None:
    end = host()
    known, waiting = Request.of(GuestCommand.GET_IP), Request.of(GuestCommand.GET_IP)
    end.send(known)
    end.receive_data(known.reply().raw)
    assert isinstance(end.next_event(), Response)
    end.send(waiting)
    assert "repeats ids" in unsolicited(feed, end, Request.of(GuestCommand.GET_IP).reply().raw)
    assert end.waiting == (waiting,)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_second_answer_does_not_match_another_request(feed: Feed, wanted: bool) -> None:
    """The second answers: one with the id after one without it, and one to a request that wanted none."""
    end = host()
    first, notification = Request.of(GuestCommand.GET_IP), Request.of(GuestCommand.GET_IP, needs_response=False)
    end.send(first)
    end.send(notification)
    (answer,) = feed(end, without_id(first, b"1"))
    assert isinstance(answer, Response)
    waiting = Request.of(GuestCommand.GET_IP)
    end.send(waiting)
    stale = first.reply(b"again").raw if wanted else notification.raw[:32] + first.reply(b"unasked").raw[32:]
    if end.held:
        end.discard_partial()
        drain(end)
    assert unsolicited(feed, end, stale).startswith("late")
    assert end.waiting == (waiting,)


def test_number_of_remembered_ids_is_limited() -> None:
    end = host()
    notifications = [Request.of(GuestCommand.GET_IP, needs_response=False) for _ in range(IDS_KEPT + 1)]
    for each in notifications:
        end.send(each)
    forgotten, oldest = (each.raw[:32] + Request.of(GuestCommand.GET_IP).reply().raw[32:] for each in notifications[:2])
    assert unsolicited(whole, end, forgotten) == "no request for its command waits"
    assert unsolicited(whole, end, oldest).startswith("late")


def test_request_with_the_same_id_is_not_forgotten() -> None:
    end = host()
    sent, twin = Request.of(2, request_id=5), Request.of(2, request_id=5)
    end.send(sent)
    assert not end.forget(twin)
    assert end.waiting == (sent,)


def test_request_ids_are_random() -> None:
    ids = {Request.of(2).request_id for _ in range(1000)}
    assert len(ids) > 990
    assert all(0 < each < 2**32 for each in ids)
    assert len({each & 0xFF for each in ids}) > 200


# -- unfinished frames


def test_a_partial_frame_is_dropped_when_asked(feed: Feed) -> None:
    end = host()
    good = Request.of(HostCommand.GUEST_SERIAL).raw
    end.receive_data(good[:2048])
    assert end.next_event() is NEED_DATA
    end.discard_partial()
    (skipped,) = drain(end)
    assert facts([skipped]) == [skipped]
    assert getattr(skipped, "reason", None) is SkipReason.SILENCE
    assert getattr(skipped, "data", None) == good[:2048]
    (asked,) = feed(end, good)
    assert isinstance(asked, Request)


def test_dropping_nothing_causes_no_event() -> None:
    end = host()
    end.discard_partial()
    assert end.next_event() is NEED_DATA


def test_dropping_across_reads() -> None:
    end = host()
    end.receive_data(b"a" * 10)
    end.receive_data(b"b" * 10)
    end.discard_partial(SkipReason.CLOSED)
    (event,) = drain(end)
    assert getattr(event, "data", None) == b"a" * 10 + b"b" * 10
    assert getattr(event, "reason", None) is SkipReason.CLOSED


# -- the caller's mistakes


def test_events_come_before_dropping() -> None:
    end = host()
    end.receive_data(Request.of(5).raw)
    with pytest.raises(MisuseError, match=r"call next_event\(\) until it returns NEED_DATA"):
        end.discard_partial()


def test_a_late_answer_shows_that_ids_are_repeated() -> None:
    end = host()
    late, waiting, other = (Request.of(GuestCommand.GET_IP) for _ in range(3))
    end.send(late)
    end.forget(late)
    end.send(waiting)
    events = whole(end, late.reply(b"1\0").raw + other.reply(b"2\0").raw)
    assert [type(event) for event in events] == [UnsolicitedResponse] * 2
    assert end.waiting == (waiting,)


def test_the_wrong_namespace() -> None:
    with pytest.raises(MisuseError, match=r"GUEST_SERIAL.*: the host's end asks commands of GuestCommand"):
        host().send(Request.of(HostCommand.GUEST_SERIAL))
    with pytest.raises(MisuseError, match=r"GUEST_SERIAL.*: the guest's end answers commands of GuestCommand"):
        guest().send(Request.of(HostCommand.GUEST_SERIAL).reply())


def test_id_that_is_already_waiting_is_rejected() -> None:
    end = host()
    end.send(Request.of(2, request_id=9))
    with pytest.raises(MisuseError, match=r"request id 0x9 waits .* forget\(\)"):
        end.send(Request.of(2, request_id=9))


def test_invalid_data_is_rejected() -> None:
    with pytest.raises(MisuseError, match="data of 4033 bytes"):
        Request.of(2, bytes(4033))
    with pytest.raises(MisuseError, match="data of 4033 bytes"):
        Request.of(2).reply(bytes(4033))
    with pytest.raises(MisuseError, match=r"data is 'text': it takes bytes; encode_text\(\)"):
        Request.of(2, "text")  # type: ignore[arg-type]


def test_a_notification_does_not_wait() -> None:
    end = guest()
    end.send(Request.of(HostCommand.GUEST_POWER, needs_response=False))
    assert end.waiting == ()


def test_invalid_arguments_of_a_connection_are_rejected() -> None:
    with pytest.raises(MisuseError, match=r"the role is 'host': it is Role\.HOST"):
        Connection("host")  # type: ignore[arg-type]
    for junk in (5, "x", None, [1]):
        with pytest.raises(MisuseError, match="it takes bytes, a bytearray or a memoryview"):
            host().receive_data(junk)  # type: ignore[arg-type]
    for nothing in (None, b"", Request(HostCommand.GUEST_SERIAL, b"", b"short")):
        with pytest.raises(MisuseError, match=r"it takes what Request\.of\(\) and Request\.reply\(\) make"):
            guest().send(nothing)  # type: ignore[arg-type]
    with pytest.raises(MisuseError, match="request_id is 0"):
        Request.of(5, request_id=0)


def test_a_long_drained_connection_holds_little() -> None:
    end = host()
    data = Request.of(5).raw * 100 + b"xy"
    references = sys.getrefcount(data)
    end.receive_data(data)
    assert sys.getrefcount(data) > references
    drain(end)
    assert end.held == 2
    assert sys.getrefcount(data) == references

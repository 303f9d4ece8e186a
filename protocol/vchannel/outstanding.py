"""Requests that wait for their responses, and whose response it is that came."""

from __future__ import annotations

from typing import Final

from vchannel.errors import MisuseError
from vchannel.events import Request, Response

IDS_KEPT: Final = 1024
"""Ids of sent requests remembered, so that a late reply doesn't pass for one to another request. One that comes after
as many more requests were sent does, where the peer isn't known to repeat ids."""


class Outstanding:
    """The requests of one connection, oldest first.

    Whether a guest repeats a request's id in its response is unknown, so both kinds are understood:
    by id and command where the id is one of ours, and else, as long as the peer hasn't shown that it
    repeats ids, the oldest that waits for that command.
    """

    __slots__ = ("_ids", "_repeats_ids", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[int, Request] = {}
        self._ids: dict[int, None] = {}  # of requests sent, answered or not
        self._repeats_ids = False

    @property
    def waiting(self) -> tuple[Request, ...]:
        return tuple(self._waiting.values())

    def add(self, request: Request) -> None:
        """Take note of a request that is sent.

        Raises:
            MisuseError: one with its id waits already.
        """
        if request.needs_response:
            if request.request_id in self._waiting:
                raise MisuseError(
                    f"request id {request.request_id:#x} waits for its response already: "
                    "make a new one with Request.of() (it makes a new id), or forget() the old one"
                )
            self._waiting[request.request_id] = request
        self._ids[request.request_id] = None
        if len(self._ids) > IDS_KEPT:
            del self._ids[next(iter(self._ids))]

    def take(self, response: Response) -> Request | str:
        """The request that a response answers, which waits no more; or why it answers none."""
        request = self._waiting.get(response.request_id)
        if request is not None:
            self._repeats_ids = True
            if request.command != response.command:
                return f"its id is of a request for command {int(request.command)}"
        elif response.request_id in self._ids:
            self._repeats_ids = True
            return "late: its request was answered, given up, or wanted no response"
        elif self._repeats_ids:
            return "no request with its id waits, and this peer repeats ids"
        else:
            request = next((each for each in self._waiting.values() if each.command == response.command), None)
            if request is None:
                return "no request for its command waits"
        del self._waiting[request.request_id]
        return request

    def forget(self, request: Request) -> bool:
        """Let a request wait no more; whether it did."""
        if self._waiting.get(request.request_id) is not request:
            return False
        del self._waiting[request.request_id]
        return True

"""Match responses to the requests that wait for them."""

from __future__ import annotations

from typing import Final

from vchannel.errors import MisuseError
from vchannel.events import Request, Response

IDS_KEPT: Final = 1024
"""Ids of sent requests to remember, so that a late response is not matched to another request. If the peer isn't known
to repeat ids, a response that comes after that many requests is still matched."""


class Outstanding:
    """The waiting requests of one connection, oldest first.

    It is unknown whether a guest repeats a request's id in its response. A response therefore matches by id and command if the
    id is one of ours. Otherwise, unless the peer has shown that it repeats ids, it matches the oldest request of its
    command.
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
        """Add a sent request.

        Raises:
            MisuseError: a request with its id is already waiting.
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
        """Remove and return the request that a response answers; or return why it answers none."""
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
        """Remove a waiting request. Return whether it was waiting."""
        if self._waiting.get(request.request_id) is not request:
            return False
        del self._waiting[request.request_id]
        return True

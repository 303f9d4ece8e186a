"""The API: routes and their handlers. GET reads, POST changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from vchannel import Command, GuestCommand
from vhostcomm.channel.calls import FREEZE, CallError
from vhostcomm.channel.guest import Guest
from vhostcomm.config.models import effective
from vhostcomm.control import health, request_parsing, serialize, shutdown
from vhostcomm.control.daemon_api import NO_FILE, DaemonApi
from vhostcomm.control.events import Events
from vhostcomm.control.metrics import CONTENT_TYPE, metrics
from vhostcomm.control.openapi import document
from vhostcomm.control.problems import Problem, internal_error, of_call, of_machine
from vhostcomm.errors import CaptureError, MachineError, ServeError


def make_api(daemon: DaemonApi) -> ASGIApp:
    """Make the application that answers the requests to a daemon. It does not check who sends them.

    An exception that is a bug is answered, and raised for the server's log.
    """
    handlers = _Handlers(daemon)
    routes: list[tuple[str, str, Callable[[Request], Awaitable[ASGIApp]]]] = [
        ("GET", "/guests", handlers.guests),
        ("GET", "/guests/{name}", handlers.guest),
        ("GET", "/guests/{name}/snippets", handlers.snippets),
        ("GET", "/guests/{name}/capture", handlers.capture),
        ("POST", "/guests/{name}/record", handlers.record),
        ("POST", "/guests/{name}/call", handlers.post_call),
        ("POST", "/guests/{name}/shutdown", handlers.shutdown),
        ("POST", "/guests/{name}/reboot", partial(handlers.command, GuestCommand.REBOOT)),
        ("POST", "/guests/{name}/resume", handlers.resume),
        ("POST", "/guests/{name}/balloon", handlers.balloon),
        ("POST", "/guests/{name}/freeze", handlers.freeze),
        ("POST", "/guests/{name}/thaw", partial(handlers.command, GuestCommand.FS_UNFREEZE)),
        ("GET", "/config", handlers.config),
        ("POST", "/reload", handlers.reload),
        ("POST", "/web", handlers.web),
        ("GET", "/healthz", handlers.healthz),
        ("GET", "/metrics", handlers.metrics),
        ("GET", "/events", handlers.events),
        ("GET", "/openapi.json", handlers.openapi),
    ]
    app = Starlette(
        routes=[Route(path, handler, methods=[method]) for method, path, handler in routes],
        exception_handlers=dict.fromkeys((Problem, CallError, MachineError, HTTPException, Exception), _on_error),
    )
    app.router.redirect_slashes = False  # a redirect has no JSON body as other answers have
    return app


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(serialize.encode(value), status, headers=headers, media_type="application/json")


async def _on_error(request: Request, error: Exception) -> Response:
    match error:
        case Problem():
            problem = error
        case CallError():
            problem = of_call(error)
        case MachineError():
            problem = of_machine(error, request.path_params["name"])
        case HTTPException():
            headers = dict(error.headers or {})
            why = f"{request.method} {request.url.path}"
            remedy = f"use {headers['Allow']}" if "Allow" in headers else "GET /openapi.json lists the paths"
            problem = Problem(error.status_code, error.detail.lower(), why, remedy, headers)
        case _:
            problem = internal_error()
    return _json(problem.document(), problem.status, problem.headers)


class _Handlers:
    def __init__(self, daemon: DaemonApi) -> None:
        self._daemon = daemon
        self._events = Events(daemon)

    def _guest(self, request: Request) -> Guest:
        return self._named(request.path_params["name"])

    def _named(self, name: str) -> Guest:
        guest = self._daemon.guest(name)
        if guest is None:
            known = ", ".join(self._daemon.guests) or "none"
            raise Problem(404, "no such guest", f"there is no guest {name!r}", f"guests: {known}")
        return guest

    # -- reading

    async def guests(self, _: Request) -> Response:
        await health.look_for(self._daemon, self._daemon.guests.values())
        return _json(serialize.guests(self._daemon.guests.values(), self._daemon.cluster))

    async def guest(self, request: Request) -> Response:
        guest = self._guest(request)
        await health.look_for(self._daemon, [guest])
        return _json(serialize.full(guest) | {"recording": serialize.recording(self._daemon.recordings.of(guest))})

    async def snippets(self, request: Request) -> Response:
        found = self._daemon.snippets(self._guest(request).name)
        made = [{"kind": kind, "text": each.text, "remarks": list(each.remarks)} for kind, each in found.items()]
        return _json({"snippets": made})

    async def capture(self, request: Request) -> Response:
        guest = self._guest(request)
        wanted = request.query_params.get("redacted", "yes")
        if wanted not in {"yes", "no"}:
            raise Problem(422, "bad request", f"redacted is {wanted!r:.100}", "expected yes or no")
        try:
            text = await self._daemon.recordings.text(guest, redacted=wanted == "yes")
        except (OSError, CaptureError) as error:
            raise Problem(409, "not readable", str(error), "the file was changed or removed; record again") from None
        if text is None:
            raise Problem(409, "no recording", f"{guest.name} was not recorded", "POST /guests/NAME/record begins one")
        name = f"{guest.name}{'-redacted' if wanted == 'yes' else ''}.jsonl"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        return Response(text, headers=headers, media_type="application/jsonl")

    async def config(self, _: Request) -> Response:
        config = self._daemon.config
        watched = {"watch": list(map(str, config.watch)), "watch_sources": list(config.watch_sources)}
        return _json(effective(config) | watched)

    async def healthz(self, _: Request) -> Response:
        await health.freshen(self._daemon)
        found = serialize.health(self._daemon.guests, self._daemon.not_reloaded, self._daemon.cluster)
        return _json(found, 200 if found["healthy"] else 503)

    async def metrics(self, _: Request) -> Response:
        await health.freshen(self._daemon)
        return Response(metrics(self._daemon), headers={"content-type": CONTENT_TYPE})

    async def openapi(self, _: Request) -> Response:
        return _json(document())

    async def events(self, request: Request) -> ASGIApp:
        name = request.query_params.get("frames")
        return partial(self._stream, None if name is None else self._named(name))

    async def _stream(self, watched: Guest | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events. A stream occupies a place from the check for it until it is closed, in any way."""
        with self._events.place():
            async with aclosing(self._events.stream(watched)) as stream:
                headers = {"cache-control": "no-store"}
                await StreamingResponse(stream, media_type="text/event-stream", headers=headers)(scope, receive, send)

    # -- changing

    async def post_call(self, request: Request) -> Response:
        guest = self._guest(request)
        body = await request_parsing.body(request, ("command", "data", "timeout", "i_know_this_is_dangerous"))
        command = request_parsing.command(body.get("command"))
        data = request_parsing.text(body.get("data"))
        timeout = request_parsing.seconds(body, "timeout", request_parsing.CALL_TIMEOUT)
        insisted = request_parsing.flag(body, "i_know_this_is_dangerous")
        request_parsing.check_dangerous(command, insisted, self._daemon.config.service.allow_dangerous)
        return await self._send(request, guest, command, data, timeout)

    async def _send(self, request: Request, guest: Guest, command: Command, data: bytes, timeout: float) -> Response:
        began = trio.current_time()
        by = request_parsing.initiator(request)
        response = await self._daemon.ask_guest(guest, command, data, timeout=timeout, by=by)
        return _json(serialize.called(guest, command, response, trio.current_time() - began))

    async def command(self, command: GuestCommand, request: Request) -> Response:
        """Send a command without data."""
        guest = self._guest(request)
        body = await request_parsing.body(request, ("timeout",))
        timeout = request_parsing.seconds(body, "timeout", request_parsing.CALL_TIMEOUT)
        return await self._send(request, guest, command, b"", timeout)

    async def shutdown(self, request: Request) -> Response:
        guest = self._guest(request)
        body = await request_parsing.body(request, ("wait", "timeout"))
        wait = request_parsing.seconds(body, "wait", 1) if "wait" in body else None
        timeout = request_parsing.seconds(body, "timeout", wait or request_parsing.CALL_TIMEOUT)
        by = request_parsing.initiator(request)
        if self._daemon.launcher:
            return _json(await shutdown.through_launcher(self._daemon.launcher, guest, wait, timeout, by))
        return _json(await shutdown.through_guest(self._daemon, guest, wait, timeout, by))

    async def record(self, request: Request) -> Response:
        guest = self._guest(request)
        body = await request_parsing.body(request, ("on",))
        if "on" not in body:
            raise Problem(422, "bad request", "on is missing", "send true to begin a recording, false to end it")
        recordings = self._daemon.recordings
        try:
            on, by = request_parsing.flag(body, "on"), request_parsing.initiator(request)
            found = await (recordings.start(guest, by) if on else recordings.stop(guest))
        except ServeError as error:
            raise Problem(409, "not recorded", str(error), "end that recording, or make room for its file") from None
        return _json({"guest": guest.name, "recording": serialize.recording(found)})

    async def resume(self, request: Request) -> Response:
        guest = self._guest(request)
        await request_parsing.body(request, ())
        guest.log.info("resume requested", by=request_parsing.initiator(request))
        resumed = await self._daemon.machine(guest.name).resume()
        return _json({"guest": guest.name, "resumed": resumed})

    async def balloon(self, request: Request) -> Response:
        guest = self._guest(request)
        size = request_parsing.size(await request_parsing.body(request, ("size",)), "size")
        if size is not None:
            guest.log.info("balloon requested", bytes=size, by=request_parsing.initiator(request))
        found = await self._daemon.machine(guest.name).balloon(size)
        return _json({"guest": guest.name, "asked": size, "actual": found.actual, "memory": found.memory})

    async def freeze(self, request: Request) -> Response:
        guest = self._guest(request)
        body = await request_parsing.body(request, ("timeout",))
        seconds = request_parsing.seconds(body, "timeout", FREEZE)
        began = trio.current_time()
        response = await self._daemon.freeze(
            guest, seconds, timeout=request_parsing.CALL_TIMEOUT, by=request_parsing.initiator(request)
        )
        made = serialize.called(guest, GuestCommand.FS_FREEZE, response, trio.current_time() - began)
        return _json(made | {"frozen_until": serialize.when(guest.frozen_until)})

    async def reload(self, request: Request) -> Response:
        await request_parsing.body(request, ())
        done = await self._daemon.reload()
        if why := done.why_not:
            remedy = "correct that and reload again; the old configuration stays active"
            if why == NO_FILE and self._daemon.launcher:
                why, remedy = "a launcher reads its files only when it starts", "shut the guest down and start it again"
            elif why == NO_FILE:
                remedy = "restart it with --config FILE"
            raise Problem(409, "not reloaded", why, remedy, reasons=done.reasons)
        return _json({"reloaded": True, "guests": list(self._daemon.guests), "needs_restart": list(done.needs_restart)})

    async def web(self, request: Request) -> Response:
        await request_parsing.body(request, ())
        link = self._daemon.new_link(request_parsing.initiator(request))
        if link is None:
            raise Problem(409, "no web page", "this daemon serves none", "start it with --web 127.0.0.1:8470")
        return _json({"link": link}, headers={"cache-control": "no-store"})

"""The OpenAPI description of the control surface."""

from __future__ import annotations

from typing import Any, Final

from vchannel import GuestCommand
from vhostcomm import __version__
from vhostcomm.channel.calls import TIMEOUT_MAX
from vhostcomm.control.request_parsing import COMMAND_MAX, SIZE_MAX
from vhostcomm.guest.model import State

Schema = dict[str, Any]

_STRING: Final[Schema] = {"type": "string"}
_INTEGER: Final[Schema] = {"type": "integer"}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_MAYBE: Final[Schema] = {"type": ["string", "null"]}
_MAYBE_INTEGER: Final[Schema] = {"type": ["integer", "null"]}
_TIME: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
_SECONDS: Final[Schema] = {"type": "number", "exclusiveMinimum": 0, "maximum": TIMEOUT_MAX}
_ANY: Final[Schema] = {}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None, *, closed: bool = True) -> Schema:
    made: Schema = {"type": "object", "properties": required | (optional or {}), "required": list(required)}
    return made | {"additionalProperties": False} if closed else made


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [{"type": "null"}, schema]}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _by_name(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


_ANSWER: Final = _object({"bytes": _INTEGER, "text": _STRING, "json": _ANY, "problem": _MAYBE})
_COMMAND: Final = _object({"number": _INTEGER, "name": _MAYBE, "known": {"enum": ["confirmed", "inferred", "unknown"]}})
_SUMMARY: Final[dict[str, Schema]] = {
    "name": _STRING,
    "state": {"enum": [each.value for each in State]},
    "since": _TIME,
    "sock": _STRING,
    "serial": _STRING,
    "served_serial": _MAYBE | {"description": "The serial number in the last answer to the guest."},
    "address": _MAYBE,
    "link": _MAYBE | {"description": "To its DSM."},
    "last_frame": _TIME,
    "stop": _or_null(_object({"by": _STRING, "how": _STRING, "when": _TIME})),
    "frozen_until": _TIME,
    "paused": _or_null(_object({"cause": _STRING, "remedy": _STRING, "since": _TIME})),
    "thaw_owed": _or_null(_object({"by": _STRING, "since": _TIME, "until": _TIME})),
    "problem": _MAYBE,
}
_WARNINGS: Final = _array(_STRING) | {"description": "Problems of the cluster; guests are still answered."}
_NEEDS_RESTART: Final = _array(_STRING) | {"description": "Changed settings that are not active before a restart."}
_ELSEWHERE: Final = _object(
    {key: _SUMMARY[key] for key in ("name", "state", "since", "address", "frozen_until")} | {"host": _STRING}
)
_CLUSTER: Final = _or_null(_object({"host": _STRING, "warnings": _WARNINGS, "elsewhere": _array(_ELSEWHERE)})) | {
    "description": "With --cluster, the guests on other hosts."
}
_INFORMATION: Final = _object(
    {"when": _TIME, "address": _MAYBE, "http_port": _MAYBE_INTEGER, "link": _MAYBE, "answer": _ref("Answer")}
)
_RECORDING: Final = _or_null(_object({"file": _STRING, "since": _TIME, "active": _BOOLEAN, "ended": _MAYBE})) | {
    "description": "The last recording that a client began."
}
_FULL: Final = _SUMMARY | {
    "identity": _object({"host": {"type": "object"}, "guest": {"type": "object"}}),
    "connections": _INTEGER,
    "starts_seen": _INTEGER,
    "reported_time": _MAYBE_INTEGER,
    "last_end": _STRING,
    "requests": _by_name(_INTEGER),
    "calls": _array(_object({"command": _STRING, "outcome": _STRING, "count": _INTEGER})),
    "answered": _by_name(_object({"answer": _STRING, "when": _TIME})),
    "counts": _by_name(_INTEGER),
    "information": _or_null(_INFORMATION),
    "recording": _RECORDING,
}
_SNIPPET: Final = _object({"kind": _STRING, "text": _STRING, "remarks": _array(_STRING)})
_CALLED: Final[dict[str, Schema]] = {
    "guest": _STRING,
    "command": _COMMAND,
    "seconds": {"type": "number"},
    "answer": _ref("Answer"),
}
_NAMES: Final = [name.lower() for name in GuestCommand.__members__]

SCHEMAS: Final[dict[str, Schema]] = {
    "Answer": _ANSWER,
    "Problem": _object(
        {"error": _object({"what": _STRING, "why": _STRING, "remedy": _STRING}, {"reasons": _array(_STRING)})}
    ),
    "Summary": _object(_SUMMARY),
    "Guest": _object(_FULL),
    "Called": _object(_CALLED),
    "Frozen": _object(_CALLED | {"frozen_until": _TIME}),
    "Stopped": _object(
        {
            "guest": _STRING,
            "command": _COMMAND,
            "answered": _BOOLEAN,
            "gone": _BOOLEAN,
            "how": _MAYBE,
            "exit_status": _MAYBE_INTEGER | {"description": "The launcher's, if a launcher runs the guest."},
            "seconds": {"type": "number"},
        }
    ),
    "Health": _object(
        {
            "healthy": _BOOLEAN,
            "guests": _INTEGER,
            "unhealthy": _by_name(_STRING),
            "not_reloaded": _MAYBE | {"description": "Why the last reload was rejected."},
            "warnings": _WARNINGS,
        }
    ),
}

_NAME: Final = {"name": "name", "in": "path", "required": True, "schema": _STRING, "description": "The guest's name."}

_TIMEOUT: Final = _object({}, {"timeout": _SECONDS})
_CALL: Final = _object(
    {"command": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": COMMAND_MAX}, {"enum": _NAMES}]}},
    {
        "data": {
            "type": ["string", "null"],
            "maxLength": 4031,
            "pattern": "^[^\\u0000]*$",
            "description": "At most 4031 bytes of UTF-8, no NUL.",
        },
        "timeout": _SECONDS,
        "i_know_this_is_dangerous": _BOOLEAN,
    },
)


def _content(schema: Schema, kind: str = "application/json") -> Schema:
    return {kind: {"schema": schema}}


_WHY_NOT: Final = {
    400: "The body is not valid JSON.",
    401: "The token is missing or wrong.",
    403: "The command is dangerous and not allowed.",
    404: "There is no such guest.",
    409: "The guest isn't connected or ready; a reload: the new configuration has an error or can't be served.",
    413: "The body is too long.",
    422: "A member of the body is invalid.",
    429: "Too many requests or event streams at once.",
    503: "The daemon is stopping.",
    502: "The connection was lost before the answer, or the guest started again.",
    504: "No answer, or the guest is not gone, within the timeout.",
}
_BODY: Final = (400, 413, 422)
_ASKING: Final = (404, 409, 429, 502, 504, *_BODY)
"""Statuses of a failed question to a guest."""


def _operation(
    summary: str,
    answer: Schema,
    *failures: int,
    body: Schema | None = None,
    needs_body: bool = False,
    query: Schema | None = None,
    kind: str = "application/json",
) -> Schema:
    """Describe an operation. `failures` are statuses of `_WHY_NOT`, besides 401; `kind` is the answer's media type."""
    problem = _content(_ref("Problem"))
    responses: Schema = {"200": {"description": "Done.", "content": _content(answer, kind)}}
    for status in sorted((401, *failures)):
        responses[str(status)] = {"description": _WHY_NOT[status], "content": problem}
    operation: Schema = {"summary": summary, "responses": responses}
    if body is not None:
        operation["requestBody"] = {"required": needs_body, "content": _content(body)}
    if query is not None:
        operation["parameters"] = [{"in": "query"} | query]
    return operation


def _health() -> Schema:
    summary = "200 if all guests are healthy and the last reload was accepted, else 503 with the reason"
    made = _operation(summary, _ref("Health"))
    why = "Each unhealthy guest with the reason, and why a reload was rejected."
    made["responses"]["503"] = {"description": why, "content": _content(_ref("Health"))}
    return made


_RECORDED: Final = _object({"guest": _STRING, "recording": _RECORDING})
_RESUMED: Final = _object({"guest": _STRING, "resumed": _BOOLEAN})
_MEMORY: Final = _object({"guest": _STRING, "asked": _MAYBE_INTEGER, "actual": _INTEGER, "memory": _INTEGER})
_SIZE: Final = _object({}, {"size": {"type": "integer", "minimum": 1, "maximum": SIZE_MAX}})
_REDACTED: Final = {"name": "redacted", "schema": {"enum": ["yes", "no"], "default": "yes"}}
_FRAMES: Final = {"name": "frames", "schema": _STRING, "description": "A guest whose frames to follow."}
_CHANGING: Final = (404, 409, *_BODY)
"""Statuses of a failed change that asks no guest."""

_OF_GUEST: Final[dict[str, tuple[str, Schema]]] = {
    "": ("get", _operation("Everything known about a guest", _ref("Guest"), 404)),
    "/snippets": ("get", _operation(
        "Text to paste into other tools for a guest; if there is none, the remark has the reason",
        _object({"snippets": _array(_SNIPPET)}), 404,
    )),
    "/record": ("post", _operation(
        "Begin a recording of a guest's frames, or end it",
        _RECORDED, *_CHANGING, body=_object({"on": _BOOLEAN}), needs_body=True,
    )),
    "/capture": ("get", _operation(
        "The last recording that a client began",
        _STRING, 404, 409, 422, query=_REDACTED, kind="application/jsonl",
    )),
    "/call": ("post", _operation(
        "Send a guest any command", _ref("Called"), 403, *_ASKING, body=_CALL, needs_body=True,
    )),
    "/shutdown": ("post", _operation(
        "Shut a guest down; with wait, answer when it is gone. A launcher runs its whole stop, within its grace",
        _ref("Stopped"), *_ASKING, body=_object({}, {"wait": _SECONDS, "timeout": _SECONDS}),
    )),
    "/reboot": ("post", _operation("Reboot a guest", _ref("Called"), *_ASKING, body=_TIMEOUT)),
    "/resume": ("post", _operation(
        "Resume a paused machine; 409 if it can't be resumed, or stopped again at once",
        _RESUMED, *_CHANGING, body=_object({}),
    )),
    "/balloon": ("post", _operation(
        "Ask a guest to change its memory to size bytes, at its own pace; without a size, show it",
        _MEMORY, *_CHANGING, body=_SIZE,
    )),
    "/freeze": ("post", _operation(
        "Freeze a guest's file systems, and thaw them after the timeout",
        _ref("Frozen"), 503, *_ASKING, body=_TIMEOUT,
    )),
    "/thaw": ("post", _operation("Thaw a guest's file systems", _ref("Called"), *_ASKING, body=_TIMEOUT)),
}  # fmt: skip
"""Below ``/guests/{name}``."""

_OTHERS: Final[dict[str, tuple[str, Schema]]] = {
    "/guests": ("get", _operation("Every guest", _object({"guests": _array(_ref("Summary")), "cluster": _CLUSTER}))),
    "/config": ("get", _operation(
        "The configuration with the source of each value, without secrets", {"type": "object"},
    )),
    "/reload": ("post", _operation(
        "Read the configuration again",
        _object({"reloaded": _BOOLEAN, "guests": _array(_STRING), "needs_restart": _NEEDS_RESTART}),
        409, *_BODY, body=_object({}),
    )),
    "/web": ("post", _operation(
        "Make a link to the web page, which signs one browser in, once",
        _object({"link": _STRING}), 409, *_BODY, body=_object({}),
    )),
    "/healthz": ("get", _health()),
    "/metrics": ("get", _operation("Prometheus metrics", _STRING, kind="text/plain")),
    "/events": ("get", _operation(
        "Events of guests, as server-sent events. Waiting events of one guest and kind are merged into the last, with "
        "their number as `times`; `lost` has a guest and the `count` of its events that were dropped. With `frames`, "
        "up to four times a second, `frames` has the latest frames of that guest and the number of all since the last; "
        "`removed` is the last event if the guest is no longer served",
        _STRING, 404, 429, query=_FRAMES, kind="text/event-stream",
    )),
    "/openapi.json": ("get", _operation("This document", {"type": "object"})),
}  # fmt: skip


def document() -> Schema:
    """Return the document."""
    paths: Schema = {path: {method: operation} for path, (method, operation) in _OTHERS.items()}
    for path, (method, operation) in _OF_GUEST.items():
        paths[f"/guests/{{name}}{path}"] = {"parameters": [_NAME], method: operation}
    about = {"title": "vhostcomm", "version": __version__, "description": "The control surface of a running daemon."}
    return {
        "openapi": "3.1.0",
        "info": about,
        "paths": paths,
        "components": {"schemas": SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }

"""The OpenAPI description of the control surface."""

from __future__ import annotations

from typing import Any, Final

from vchannel import GuestCommand
from vhostcomm import __version__
from vhostcomm.control.request_parsing import COMMAND_MAX, SIZE_MAX, TIMEOUT_MAX
from vhostcomm.guest.model import State

Schema = dict[str, Any]

_STRING: Final[Schema] = {"type": "string"}
_INTEGER: Final[Schema] = {"type": "integer"}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_MAYBE: Final[Schema] = {"type": ["string", "null"]}
_TIME: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
_SECONDS: Final[Schema] = {"type": "number", "exclusiveMinimum": 0, "maximum": TIMEOUT_MAX}
_ANY: Final[Schema] = {}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None, *, closed: bool = True) -> Schema:
    made: Schema = {"type": "object", "properties": required | (optional or {}), "required": list(required)}
    return made | {"additionalProperties": False} if closed else made


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_ANSWER: Final = _object({"bytes": _INTEGER, "text": _STRING, "json": _ANY, "problem": _MAYBE})
_COMMAND: Final = _object({"number": _INTEGER, "name": _MAYBE, "known": {"enum": ["confirmed", "inferred", "unknown"]}})
_STOP: Final = {"anyOf": [{"type": "null"}, _object({"by": _STRING, "how": _STRING, "when": _TIME})]}
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
    "stop": _STOP,
    "frozen_until": _TIME,
    "paused": {"anyOf": [{"type": "null"}, _object({"cause": _STRING, "remedy": _STRING, "since": _TIME})]},
    "thaw_owed": {"anyOf": [{"type": "null"}, _object({"by": _STRING, "since": _TIME, "until": _TIME})]},
    "problem": _MAYBE,
}
_WARNINGS: Final[Schema] = {
    "type": "array",
    "items": _STRING,
    "description": "Problems of the cluster; guests are still answered.",
}
_ELSEWHERE: Final = _object(
    {key: _SUMMARY[key] for key in ("name", "state", "since", "address", "frozen_until")} | {"host": _STRING}
)
_CLUSTER: Final = {
    "anyOf": [
        {"type": "null"},
        _object({"host": _STRING, "warnings": _WARNINGS, "elsewhere": {"type": "array", "items": _ELSEWHERE}}),
    ],
    "description": "With --cluster, the guests on other hosts.",
}
_INFORMATION: Final = _object(
    {
        "when": _TIME,
        "address": _MAYBE,
        "http_port": {"type": ["integer", "null"]},
        "link": _MAYBE,
        "answer": _ref("Answer"),
    }
)
_RECORDING: Final = {
    "anyOf": [{"type": "null"}, _object({"file": _STRING, "since": _TIME, "active": _BOOLEAN, "ended": _MAYBE})],
    "description": "The last recording that a client began.",
}
_FULL: Final = _SUMMARY | {
    "identity": _object({"host": {"type": "object"}, "guest": {"type": "object"}}),
    "connections": _INTEGER,
    "starts_seen": _INTEGER,
    "told_time": {"type": ["integer", "null"]},
    "gone_why": _STRING,
    "requests": {"type": "object", "additionalProperties": _INTEGER},
    "calls": {"type": "array", "items": _object({"command": _STRING, "outcome": _STRING, "count": _INTEGER})},
    "answered": {"type": "object", "additionalProperties": _object({"answer": _STRING, "when": _TIME})},
    "counts": {"type": "object", "additionalProperties": _INTEGER},
    "information": {"anyOf": [{"type": "null"}, _INFORMATION]},
    "recording": _RECORDING,
}
_SNIPPET: Final = _object({"kind": _STRING, "text": _STRING, "remarks": {"type": "array", "items": _STRING}})
_CALLED: Final[dict[str, Schema]] = {
    "guest": _STRING,
    "command": _COMMAND,
    "seconds": {"type": "number"},
    "answer": _ref("Answer"),
}
_NAMES: Final = [name.lower() for name in GuestCommand.__members__]

SCHEMAS: Final[dict[str, Schema]] = {
    "Answer": _ANSWER,
    "Problem": _object({"error": _object({"what": _STRING, "why": _STRING, "remedy": _STRING})}),
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
            "exit_status": {
                "type": ["integer", "null"],
                "description": "The launcher's, if a launcher runs the guest.",
            },
            "seconds": {"type": "number"},
        }
    ),
    "Health": _object(
        {
            "healthy": _BOOLEAN,
            "guests": _INTEGER,
            "unwell": {"type": "object", "additionalProperties": _STRING},
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
    kind: str = "application/json",
) -> Schema:
    problem = _content(_ref("Problem"))
    operation: Schema = {
        "summary": summary,
        "responses": {
            "200": {"description": "Done.", "content": _content(answer, kind)},
            **{
                str(status): {"description": _WHY_NOT[status], "content": problem}
                for status in sorted((401, *failures))
            },
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": needs_body, "content": _content(body)}
    return operation


def _about_guest(**operations: Schema) -> Schema:
    return {"parameters": [_NAME]} | operations


def document() -> Schema:
    """Return the document."""
    called = _ref("Called")
    guests = _object({"guests": {"type": "array", "items": _ref("Summary")}, "cluster": _CLUSTER})
    healthz = _operation(
        "200 if all guests are healthy and the last reload was accepted, else 503 with the reason", _ref("Health")
    )
    healthz["responses"]["503"] = {
        "description": "Each unhealthy guest with the reason, and why a reload was rejected.",
        "content": _content(_ref("Health")),
    }
    reloaded = _object({"reloaded": _BOOLEAN, "guests": {"type": "array", "items": _STRING}})
    paths = {
        "/guests": {"get": _operation("Every guest", guests)},
        "/guests/{name}": _about_guest(get=_operation("Everything known about a guest", _ref("Guest"), 404)),
        "/guests/{name}/snippets": _about_guest(
            get=_operation(
                "Text to paste into other tools for a guest; if there is none, the remark has the reason",
                _object({"snippets": {"type": "array", "items": _SNIPPET}}),
                404,
            )
        ),
        "/guests/{name}/record": _about_guest(
            post=_operation(
                "Begin a recording of a guest's frames, or end it",
                _object({"guest": _STRING, "recording": _RECORDING}),
                404,
                409,
                *_BODY,
                body=_object({"on": _BOOLEAN}),
                needs_body=True,
            )
        ),
        "/guests/{name}/capture": _about_guest(
            get=_operation("The last recording that a client began", _STRING, 404, 409, 422, kind="application/jsonl")
            | {"parameters": [{"name": "redacted", "in": "query", "schema": {"enum": ["yes", "no"], "default": "yes"}}]}
        ),
        "/guests/{name}/call": _about_guest(
            post=_operation("Send a guest any command", called, 403, *_ASKING, body=_CALL, needs_body=True)
        ),
        "/guests/{name}/shutdown": _about_guest(
            post=_operation(
                "Shut a guest down; with wait, answer when it is gone. A launcher runs its whole stop, within its grace",
                _ref("Stopped"),
                *_ASKING,
                body=_object({}, {"wait": _SECONDS, "timeout": _SECONDS}),
            )
        ),
        "/guests/{name}/reboot": _about_guest(post=_operation("Reboot a guest", called, *_ASKING, body=_TIMEOUT)),
        "/guests/{name}/resume": _about_guest(
            post=_operation(
                "Resume a paused machine; 409 if it can't be resumed, or stopped again at once",
                _object({"guest": _STRING, "resumed": _BOOLEAN}),
                404,
                409,
                *_BODY,
                body=_object({}),
            )
        ),
        "/guests/{name}/balloon": _about_guest(
            post=_operation(
                "Ask a guest to change its memory to size bytes, at its own pace; without a size, show it",
                _object(
                    {"guest": _STRING, "asked": {"type": ["integer", "null"]}, "actual": _INTEGER, "memory": _INTEGER}
                ),
                404,
                409,
                *_BODY,
                body=_object({}, {"size": {"type": "integer", "minimum": 1, "maximum": SIZE_MAX}}),
            )
        ),
        "/guests/{name}/freeze": _about_guest(
            post=_operation(
                "Freeze a guest's file systems, and thaw them after the timeout",
                _ref("Frozen"),
                503,
                *_ASKING,
                body=_TIMEOUT,
            )
        ),
        "/guests/{name}/thaw": _about_guest(
            post=_operation("Thaw a guest's file systems", called, *_ASKING, body=_TIMEOUT)
        ),
        "/config": {
            "get": _operation("The configuration with the source of each value, without secrets", {"type": "object"})
        },
        "/reload": {"post": _operation("Read the configuration again", reloaded, 409, *_BODY, body=_object({}))},
        "/web": {
            "post": _operation(
                "Make a link to the web page, which signs one browser in, once",
                _object({"link": _STRING}),
                409,
                *_BODY,
                body=_object({}),
            )
        },
        "/healthz": {"get": healthz},
        "/metrics": {"get": _operation("Prometheus metrics", _STRING, kind="text/plain")},
        "/events": {
            "get": _operation(
                "Events of guests, as server-sent events. Waiting events of one guest and kind are merged into the last, with "
                "their number as `times`; `lost` has a guest and the `count` of its events that were dropped. With `frames`, "
                "up to four times a second, `frames` has the latest frames of that guest and the number of all since the last; "
                "`removed` is the last event if the guest is no longer served",
                _STRING,
                404,
                429,
                kind="text/event-stream",
            )
            | {
                "parameters": [
                    {
                        "name": "frames",
                        "in": "query",
                        "schema": _STRING,
                        "description": "A guest whose frames to follow.",
                    }
                ]
            }
        },
        "/openapi.json": {"get": _operation("This document", {"type": "object"})},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vhostcomm",
            "version": __version__,
            "description": "The control surface of a running daemon.",
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }

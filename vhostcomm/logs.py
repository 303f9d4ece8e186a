"""The log: structlog, for people on a terminal and as JSON lines otherwise, and never in the way."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog

from vhostcomm.sink import Sink, write_all

TEXT_LIMIT: Final = 200
"""Characters of one value in a log line; what a guest sends can be 4 KB of anything."""

FLUSH_TIMEOUT: Final = 0.5
"""Seconds that the end of the program waits for a stuck log."""

Log = structlog.typing.FilteringBoundLogger


def escape(text: str, limit: int = TEXT_LIMIT) -> str:
    """Somebody else's text for a log or a terminal: no control character, nothing that turns text round, capped."""
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    if short.isprintable():
        return short
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in short)


class _Output:
    """The stream of the log: a sink for its lines, which counts what is lost and says so when it can."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._told = 0
        self.sink: Sink[str] = Sink(self._write, "log", lambda _: None)

    def _write(self, lines: list[str]) -> None:
        lost = self.sink.lost - self._told
        if lost:
            self._told += lost
            lines.append(f"{lost} log lines were lost: nobody read them fast enough")
        write_all(self._fd, "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))


class _Logger:
    """What structlog calls with a finished line."""

    def __init__(self, output: _Output) -> None:
        self._put = output.sink.put

    def msg(self, message: str) -> None:
        self._put(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _safe(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = escape(value)
        elif not isinstance(value, int | float | bool | list | dict | tuple | type(None)) and key != "exc_info":
            event[key] = escape(str(value))
    return event


def _json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    first = {key: event.pop(key, None) for key in ("timestamp", "level", "event")}
    return json.dumps(first | dict(event), default=str)


def start_log(level: str, form: str, stream: TextIO | None = None) -> tuple[Log, Sink[str]]:
    """Make the log.

    Args:
        level: debug, info, warning or error.
        form: console, json, or auto: console on a terminal, json elsewhere.
        stream: where to; standard output by default.

    Returns:
        The log, and its sink, to be closed at the end.
    """
    stream = stream or sys.stdout
    console = form == "console" or (form == "auto" and stream.isatty())
    output = _Output(stream.fileno())
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if console else "iso", utc=not console),
        structlog.processors.format_exc_info,
        _safe,
    ]
    if console:
        colors = stream.isatty() and not os.environ.get("NO_COLOR")
        processors.append(structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=28, sort_keys=False))
    else:
        processors.append(_json)
    log: Log = structlog.wrap_logger(
        _Logger(output),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    return log.bind(), output.sink

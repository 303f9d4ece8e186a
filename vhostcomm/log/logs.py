"""The log: structlog with a format for terminals and the journal, and JSON lines elsewhere. Logging never blocks."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, TextIO

from vhostcomm.errors import VhostcommError
from vhostcomm.log.lean_structlog import structlog
from vhostcomm.log.sink import Sink, drain
from vhostcomm.systemd.journal import is_journal, with_priority
from vhostcomm.text import escape

TRACE_LIMIT: Final = 8000
"""Maximum characters of a traceback in a log message."""

FLUSH_TIMEOUT: Final = 0.5
"""Seconds that the program waits at its end for a log that can't be written."""

LINES_AT_ONCE: Final = 100.0
LINES_A_SECOND: Final = 1.0
"""Rate limit of one source: the first number of messages at once, as many as six boots cause; then the second number each second."""

QUIET: Final = 60.0
"""Seconds without an event after which its next occurrence counts as the first."""

Log = structlog.typing.FilteringBoundLogger


class LimitedLog:
    """A rate-limited log for one source, such as a guest's frames, which may cause any number of messages.

    The first messages are logged at once, then one a second. The next message has the number of omitted ones, as
    `lines_left_out`.

    Args:
        log: the log behind it.
    """

    __slots__ = ("_counts", "_left_out", "_log", "_room", "_since")

    def __init__(self, log: Log) -> None:
        self._log = log
        self._room = LINES_AT_ONCE
        self._since = time.monotonic()
        self._left_out = 0
        self._counts: dict[str, tuple[int, float]] = {}

    def info(self, event: str, **facts: object) -> None:
        self._log_sampled(self._log.info, event, facts)

    def warning(self, event: str, **facts: object) -> None:
        self._log_sampled(self._log.warning, event, facts)

    def error(self, event: str, **facts: object) -> None:
        self._log_sampled(self._log.error, event, facts)

    def repeated(self, event: str, **facts: object) -> None:
        """Warn at the 1st, 10th, 100th … occurrence, with `times`. A quiet minute resets the count.

        Args:
            event: a constant, never a guest's text: each one is remembered.
            facts: fields of the message.
        """
        now = time.monotonic()
        count, last = self._counts.get(event, (0, now))
        count = count + 1 if now - last < QUIET else 1
        self._counts[event] = count, now
        if str(count).strip("0") == "1":
            self._log_sampled(self._log.warning, event, {"times": count} | facts)

    def _log_sampled(self, log: Callable[..., Any], event: str, facts: dict[str, object]) -> None:
        now = time.monotonic()
        self._room = min(LINES_AT_ONCE, self._room + (now - self._since) * LINES_A_SECOND)
        self._since = now
        if self._room < 1:
            self._left_out += 1
            return
        self._room -= 1
        if self._left_out:
            facts["lines_left_out"], self._left_out = self._left_out, 0
        log(event, **facts)


class _Output:
    """The log's stream: a sink that counts lost lines, and logs their number as soon as it can.

    Args:
        fd: the descriptor to write to.
        lost_line: formats the line with the number of lost lines.
    """

    def __init__(self, fd: int, lost_line: Callable[[int], str]) -> None:
        self._fd = fd
        self._terminal = os.isatty(fd)
        self._lost_line = lost_line
        self._lost_logged = 0
        self._torn = b""
        self.sink: Sink[str] = Sink(self._write, "log", lambda _: None, self._is_final)

    def _write(self, lines: list[str]) -> None:
        lost = self.sink.lost - self._lost_logged
        report = [self._lost_line(lost)] if lost else []
        text = "".join(f"{line}\n" for line in [*lines, *report]).encode(errors="backslashreplace")
        left = bytearray(self._torn + text)
        size = len(left)
        try:
            drain(self._fd, left)
        finally:
            if len(left) < size:
                # If a line was written partly, its rest comes first at the next write, so that lines stay whole.
                begun = (self._torn + text)[size - len(left) - 1] != ord("\n")
                self._torn = bytes(left[: left.index(b"\n") + 1]) if begun else b""
        self._lost_logged += lost

    def _is_final(self, error: OSError) -> bool:
        """Return whether no write can succeed again. A full disk may get space; EIO means that a terminal has gone."""
        return error.errno in {errno.EPIPE, errno.EBADF} or (error.errno == errno.EIO and self._terminal)


class _Logger:
    """The logger behind structlog, which passes it finished lines."""

    def __init__(self, output: _Output) -> None:
        self._put = output.sink.put

    def msg(self, message: str) -> None:
        self._put(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _escape_trace(text: str) -> str:
    """Escape a traceback line by line, and keep the end of a long one, which has the exception."""
    short = text if len(text) <= TRACE_LIMIT else "…" + text[1 - TRACE_LIMIT :]
    return "\n".join(escape(line, TRACE_LIMIT) for line in short.split("\n"))


def _safe(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    for key, value in event.items():
        if key == "exception" and isinstance(value, str):
            event[key] = _escape_trace(value)
        elif isinstance(value, str):
            event[key] = escape(value)
        elif isinstance(value, VhostcommError):  # each of its reasons is as long as another value
            event[key] = value.in_one_line(escape)
        elif not isinstance(value, int | float | bool | list | dict | tuple | type(None)) and key != "exc_info":
            event[key] = escape(str(value))
    return event


def _json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    first = {key: event.pop(key, None) for key in ("timestamp", "level", "event")}
    return json.dumps(first | dict(event), default=str)


def _with_priority(_: Any, level: str, line: str) -> str:
    return with_priority(level, line)


def _level_styles(*, colors: bool) -> dict[str, str]:
    """Return structlog's colours of levels, with magenta for yellow, which is unreadable on a light background."""
    styles = dict(structlog.dev.ConsoleRenderer.get_default_level_styles(colors))
    return {level: style.replace("\x1b[33m", "\x1b[35m") for level, style in styles.items()}


def start_log(level: str, form: str, stream: TextIO | None = None) -> tuple[Log, Sink[str]]:
    """Make the log.

    Args:
        level: debug, info, warning or error.
        form: console, json, or auto: console on a terminal and in the journal, json elsewhere.
        stream: the output; None for standard output. If that is closed, the log is discarded.

    Returns:
        The log, and its sink, to close at the end.
    """
    stream = stream or sys.stdout
    if stream is None:  # it was closed when the program started
        fd, terminal = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), False
    else:
        fd, terminal = stream.fileno(), stream.isatty()
    journal = is_journal(fd)
    console = form == "console" or (form == "auto" and (terminal or journal))
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        _safe,
    ]
    if not (console and journal):  # the journal adds its own times
        stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if console else "iso", utc=not console)
        processors.insert(2, stamp)
    if console:
        colors = terminal and not os.environ.get("NO_COLOR")
        processors.append(
            structlog.dev.ConsoleRenderer(
                colors=colors,
                pad_event_to=28,
                sort_keys=False,
                exception_formatter=structlog.dev.plain_traceback,
                level_styles=_level_styles(colors=colors),
            )
        )
    else:
        processors.append(_json)
    if journal:
        processors.append(_with_priority)

    def lost_line(count: int) -> str:
        line: Any = {"event": "log lines were lost", "lost": count}
        for process in processors:
            line = process(None, "warning", line)
        return str(line)

    output = _Output(fd, lost_line)
    log: Log = structlog.wrap_logger(
        _Logger(output),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    return log.bind(), output.sink

"""Explain mistakes in the command line. Imported only if there is one."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from cyclopts.exceptions import (
    ArgumentOrderError,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    MixedArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

from vhostcomm.cli.help import RUN, verbs_of
from vhostcomm.config.values import uuid_of
from vhostcomm.errors import UsageError

if TYPE_CHECKING:
    from cyclopts import App
    from cyclopts.argument import Argument


def explain(app: App, words: Sequence[str], error: CycloptsError | UsageError, program: str = "") -> UsageError:
    """Explain what is wrong with a command line, and name the help to read.

    Args:
        app: the command line.
        words: the command line.
        error: of the parser or the verb.
        program: the script that is the verb alone; "" for vhostcomm.
    """
    verb = verb_of(app, words)
    whose = program or " ".join(verb) or "vhostcomm"
    for each in verb:
        app = app[each]
    what = str(error) if isinstance(error, UsageError) else _what(app, verb, whose, error)
    command = [program] if program else ["vhostcomm", *verb]
    return UsageError(f"{what.replace(RUN, program or RUN)} (see {shlex.join([*command, '--help'])})")


def verb_of(app: App, words: Sequence[str]) -> list[str]:
    """Return the verb at the start of a command line, by its name even if an alias was given."""
    found: list[str] = []
    for word in words:
        if word.startswith("-") or word not in app:
            break
        found.append(next(name for name, aliases in verbs_of(app).items() if word in (name, *aliases)))
        app = app[word]
    return found


def _what(app: App, verb: Sequence[str], whose: str, error: CycloptsError) -> str:
    match error:
        case UnknownCommandError():
            return _unknown_verb(app, verb, (error.unused_tokens or [""])[0])
        case UnknownOptionError():
            return _unknown_flag(whose, error)
        case UnusedCliTokensError():
            return _unused(app, whose, (error.unused_tokens or [""])[0])
        case MissingArgumentError(argument=argument) if argument is not None:
            return _missing(argument, error.keyword)
        case CoercionError(token=token, argument=argument) if token is not None:
            return _unreadable(token.keyword or _label(argument), token.value, error.target_type, argument)
        case ValidationError(argument=argument) if argument is not None:
            token = argument.tokens[0]
            return f"{token.keyword or _label(argument)} {token.value}: {error.exception_message}"
        case RepeatArgumentError():
            return f"{error.token.keyword} is given twice: give it once"
        case ArgumentOrderError() | MixedArgumentError():
            return f"{_label(error.argument)} is given twice, with its flag and without: give it once"
        case _:
            error.verbose = False
            return str(error).strip().rstrip(".")


def _unknown_verb(app: App, verb: Sequence[str], word: str) -> str:
    verbs = verbs_of(app)
    near = difflib.get_close_matches(word, [name for first, others in verbs.items() for name in (first, *others)], n=1)
    meant = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(verbs)}" if verb else ""
    return f"{' '.join([*verb, word])}: no such command{meant}"


def _unknown_flag(whose: str, error: UnknownOptionError) -> str:
    flag = (error.token.keyword or error.token.value).partition("=")[0]
    known = {name.lstrip("-"): name for each in error.argument_collection if each.show for name in each.names}
    near = difflib.get_close_matches(flag.lstrip("-"), known, n=1, cutoff=0.7)  # dashes would make all flags similar
    return f"{flag}: {whose} has no such flag" + (f"; did you mean {known[near[0]]}?" if near else "")


def _unused(app: App, whose: str, word: str) -> str:
    """Explain a word that the verb doesn't accept; a flag may be missing before a socket or a file."""
    flags = {name for each in app.assemble_argument_collection(parse_docstring=False) for name in each.names}
    is_file = word.endswith(".toml")
    is_sock = "/" in word or "=" in word or word.startswith(("tcp:", "connect:")) or uuid_of(word)
    flag = "--config" if is_file else "--sock" if is_sock else ""
    meant = f"; did you mean {flag} {shlex.quote(word)}?" if flag in flags else ""
    return f"{word}: {whose} accepts no such argument" + meant


def _missing(argument: Argument, keyword: str | None) -> str:
    given = keyword or next((token.keyword for token in argument.tokens if token.keyword), None)
    if given:
        return f"{given}: its value is missing: {_usage(argument, given)}"
    if argument.index is not None:
        return f"{_label(argument)} is missing"
    return f"{argument.name} is missing: give {_usage(argument, argument.name)}"


def _usage(argument: Argument, flag: str) -> str:
    return f"{flag} {argument.parameter.metavar or 'VALUE'}"


def _label(argument: Argument | None) -> str:
    """Return the name of a flag, or of an argument without one."""
    if argument is None:
        return "an argument"
    return argument.name.lstrip("-").upper() if argument.index is not None else argument.name


def _unreadable(flag: str, value: str, wanted: Any, argument: Argument | None) -> str:
    choices = _choices(wanted)
    if choices:
        near = difflib.get_close_matches(value, choices, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        return f"{flag} {value}: must be one of {', '.join(choices)}{meant}"
    if wanted in (int, float):
        seconds = " of seconds" if argument and argument.parameter.metavar == "SECONDS" else ""
        example = f"; for example: {flag} {10 if seconds else 2}" if flag.startswith("-") else ""
        return f"{flag} {value}: must be a {'whole ' if wanted is int else ''}number{seconds}{example}"
    return f"{flag} {value}: invalid value"


def _choices(wanted: Any) -> list[str]:
    if get_origin(wanted) is Literal:
        return [str(each) for each in get_args(wanted)]
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return [str(each.value) for each in wanted]
    return [each for part in get_args(wanted) for each in _choices(part)]

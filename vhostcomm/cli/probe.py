"""`vhostcomm probe`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from vhostcomm.cli.flags import Place
from vhostcomm.cli.output import print_error, print_json, print_table
from vhostcomm.cli.target import advice, daemons_socket
from vhostcomm.config.address import example_socket
from vhostcomm.errors import UsageError
from vhostcomm.probe import COMPLAINTS, Answer, EndedError, UnreachableError, ask, complaints


def probe(
    path: Annotated[
        Place | None,
        Parameter(name="SOCK", help="The daemon's socket: a path, a guest's UUID, or tcp:HOST:PORT."),
    ] = None,
    /,
    *,
    sock: Annotated[Place | None, Parameter(metavar="SOCK", help="The same, as a flag.")] = None,
    timeout: Annotated[float, Parameter(metavar="SECONDS", help="Seconds to wait for each answer.")] = 2.0,
    json: Annotated[bool, Parameter(negative=(), help="Print JSON.")] = False,
) -> int:
    """Ask a daemon what a guest asks, and show the answers.

    If an answer is missing, prints the lines that a guest would log and what to check, and exits with 1. A daemon serves
    one connection per guest: probe before QEMU starts, or use the socket of another guest. `probe` waits for a
    daemon that was started within the last 10 seconds.

    For example:

        vhostcomm probe /run/vhostcomm/nas               # as root
        vhostcomm probe $XDG_RUNTIME_DIR/vhostcomm/nas   # as a user
    """
    if path is not None and sock is not None:
        raise UsageError("the socket is given twice: give SOCK or --sock")
    given = path or sock
    if given is None:
        raise UsageError(f"SOCK is missing; for example: vhostcomm probe {example_socket('nas')}")
    where = daemons_socket(given, timeout)
    try:
        answers = [*ask(str(where), timeout)]
    except UnreachableError as error:
        what = advice(where, error)
        if json:
            print_json({"sock": str(where), "reached": False, "error": str(error), "advice": what, "answers": []})
        print_error(f"vhostcomm: {error}\n{what}")
        if isinstance(error, EndedError):
            return 1
        print_error("A guest would log:")
        for command in COMPLAINTS:
            _complain(Answer(command, None, None))
        return 1
    missing = [answer for answer in answers if answer.missing]
    if json:
        print_json(
            {
                "sock": str(where),
                "reached": True,
                "answers": [
                    {
                        "command": int(answer.command),
                        "name": answer.command.name,
                        "answer": answer.text,
                        "milliseconds": answer.milliseconds and round(answer.milliseconds, 3),
                        "missing": answer.missing,
                        "problem": answer.problem or None,
                    }
                    for answer in answers
                ],
            }
        )
    else:
        print_table(("COMMAND", "MS", "ANSWER"), map(_row, answers))
    for answer in missing:
        _complain(answer)
    if missing:
        print_error(
            f"vhostcomm: {len(missing)} of {len(answers)} answers are missing. "
            "Is it vhostcomm that listens there, and is another guest connected to the same socket? See its log."
        )
    return 1 if missing else 0


def _row(answer: Answer) -> tuple[str, ...]:
    shown = "no answer" if answer.text is None else answer.text or "(empty)"
    if answer.problem:
        shown += f"  [{answer.problem}]"
    time = "" if answer.milliseconds is None else f"{answer.milliseconds:.2f}"
    return f"{answer.command.value:2} {answer.command.name}", time, shown


def _complain(answer: Answer) -> None:
    for line in complaints(answer):
        print_error(line)

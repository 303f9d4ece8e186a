"""The command line: one small function per verb."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter

from vchannel.errors import VchannelError
from vhostcomm import __version__
from vhostcomm.capture import Capture, compare, format_capture, read_capture, redact
from vhostcomm.capture.show import transcript
from vhostcomm.errors import UsageError, VhostcommError

app = App(
    name="vhostcomm",
    help="The host side of Virtual DSM's vchannel.",
    version=f"vhostcomm {__version__}",
    version_flags=["--version"],
)
capture = App(name="capture", help="Read, compare and redact captures of a channel.")
app.command(capture)

CaptureFile = Annotated[Path, Parameter(help="A capture (.jsonl).")]


@capture.command
def show(file: CaptureFile) -> None:
    """Print a capture as a readable transcript."""
    for line in transcript(_load(file)):
        print(line)  # noqa: T201


@capture.command(name="redact")
def redact_capture(
    file: CaptureFile,
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="Where to; standard output by default.")
    ] = None,
) -> None:
    """Replace serial numbers, MAC addresses, UUIDs and IP addresses by placeholders.

    The same secret always gets the same placeholder. Names and other things that a guest tells stay: read the
    result before you publish it.
    """
    text = "".join(format_capture(redact(_load(file))))
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise VhostcommError(f"{output}: {error.strerror}; choose another place with --output") from None


@capture.command
def diff(
    a: CaptureFile,
    b: CaptureFile,
    *,
    request_ids: Annotated[bool, Parameter(help="Compare the random request ids too.")] = False,
) -> int:
    """Tell what differs between two captures, with the line in each; exit with 1 if anything does.

    Times are not compared.
    """
    found = compare(_load(a), _load(b), request_ids=request_ids)
    for difference in found:
        print(difference)  # noqa: T201
    return 1 if found else 0


def _load(path: Path) -> Capture:
    try:
        with path.open(encoding="utf-8", errors="backslashreplace") as lines:
            loaded = read_capture(lines, str(path))
    except OSError as error:
        raise VhostcommError(f"{path}: {error.strerror}") from None
    if loaded.cut_off:
        print(f"vhostcomm: {path}: the last line is cut off and left out", file=sys.stderr)  # noqa: T201
    return loaded


def main() -> NoReturn:
    """The console script. Exit status: 0 done, 1 an error or a difference, 2 a mistake in the command line."""
    try:
        status = app(result_action="return_value", exit_on_error=False, print_error=False)
    except (CycloptsError, UsageError) as error:
        _fail(f"{error} (see vhostcomm --help)", UsageError.exit_code)
    except VhostcommError as error:
        _fail(str(error), error.exit_code)
    except VchannelError as error:
        _fail(str(error), VhostcommError.exit_code)
    except BrokenPipeError:  # `| head`
        sys.stderr.close()
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> NoReturn:
    print(f"vhostcomm: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(status)

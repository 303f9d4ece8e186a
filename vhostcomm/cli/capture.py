"""`vhostcomm capture`: show, replay, redact, diff, export."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, TypeAlias

from cyclopts import Parameter

from vhostcomm.capture.compare import compare
from vhostcomm.capture.format import Capture, format_capture
from vhostcomm.capture.reading import read_capture
from vhostcomm.capture.redact_capture import redact
from vhostcomm.capture.show import transcript
from vhostcomm.cli.flags import Place
from vhostcomm.cli.help import group_of_verbs
from vhostcomm.cli.output import print_error, print_line
from vhostcomm.cli.target import advice, daemons_socket
from vhostcomm.errors import UsageError, VhostcommError
from vhostcomm.text import counted

app = group_of_verbs("capture", "Show, replay, compare, redact and export captures of a channel.")

CaptureFile = Annotated[Path, Parameter(help="A capture (.jsonl).")]
Force: TypeAlias = Annotated[bool, Parameter(help="Overwrite a file that exists.")]


@app.command
def show(file: CaptureFile) -> None:
    """Print a capture as a readable transcript."""
    for line in transcript(_load(file)):
        print_line(line)


@app.command(name="redact")
def redact_capture(
    file: CaptureFile,
    *,
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], metavar="FILE", help="The output file; standard output by default."),
    ] = None,
    keep_text: Annotated[
        bool, Parameter(help="Keep the guest's text, such as names, except the secrets found in it.")
    ] = False,
    force: Force = False,
) -> None:
    """Replace serial numbers, MAC addresses, UUIDs and IP addresses by placeholders, and mask what may contain others.

    The same secret always gets the same placeholder. Request ids and unusual guest ids become small numbers. The data
    of a dangerous command is blanked. In binary data, padding, skipped bytes and invalid headers, only the positions of
    zeros stay. The guest's text becomes x, except integers and JSON members that the protocol defines; --keep-text
    keeps it. Times stay: read the result before you publish it.
    """
    text = "".join(format_capture(redact(_load(file), keep_text=keep_text)))
    if output is None:
        sys.stdout.write(text)
        return
    with _created(output, file, force=force) as made:
        made.write(text.encode())


@app.command(usage="Usage: vhostcomm capture export [OPTIONS] FILE [OUTPUT]")
def export(
    file: CaptureFile,
    output: Annotated[
        Path | None,
        Parameter(
            name=["--output", "-o"],
            allow_leading_hyphen=True,
            help="The output file, such as guest.pcapng; - is standard output.",
        ),
    ] = None,
    *,
    force: Force = False,
) -> None:
    """Write a capture as pcapng, for Wireshark with vhostcomm's dissector, vchannel.lua.

    The dissector is in share/vhostcomm/wireshark beside the bin of the installation: of /opt/vhostcomm/bin/vhostcomm
    it is /opt/vhostcomm/share/vhostcomm/wireshark/vchannel.lua. In a checkout it is in protocol/wireshark.

    Each frame is a packet with its direction; so are skipped bytes. The capture's provenance and remarks become
    comments. A redacted capture stays redacted; exporting redacts nothing.
    """
    from vhostcomm.capture.export import times_of, write_pcapng

    to_stdout = output is None or str(output) == "-"
    if to_stdout and sys.stdout.isatty():
        raise UsageError("a terminal can't show pcapng; give a file with --output, or pipe it: … | wireshark -k -i -")
    if not to_stdout and str(output).startswith("-"):
        raise UsageError(f"--output takes a file, not {output}; one of that name is ./{output}")
    capture = _load(file)
    list(times_of(capture, str(file)))  # finds errors before the file is created or emptied
    if output is None or to_stdout:
        write_pcapng(capture, sys.stdout.buffer, str(file))
        return
    with _created(output, file, force=force) as made:
        write_pcapng(capture, made, str(file))


@app.command
def diff(
    first: CaptureFile,
    second: CaptureFile,
    *,
    request_ids: Annotated[bool, Parameter(help="Compare the random request ids too.")] = False,
) -> int:
    """Print the differences of two captures, with the line in each. Exit with 1 if there are any.

    Times are not compared.
    """
    found = compare(_load(first), _load(second), request_ids=request_ids)
    for difference in found:
        print_line(str(difference))
    return 1 if found else 0


@app.command
def replay(
    file: CaptureFile,
    *,
    sock: Annotated[
        Place, Parameter(metavar="SOCK", help="The daemon's socket: a path, a guest's UUID, or tcp:HOST:PORT.")
    ],
    ignore_identity: Annotated[
        bool,
        Parameter(help="Ignore differences in serial numbers, UUIDs, MAC address, model, CPU, versions and deadline."),
    ] = False,
    timeout: Annotated[float, Parameter(metavar="SECONDS", help="Seconds to wait for each answer.")] = 5.0,
) -> int:
    """Replay the guest's side of a capture to a running daemon, and compare every reply with the capture's.

    Prints each difference, and exits with 1 if there are any.
    """
    from vhostcomm.probe import UnreachableError
    from vhostcomm.replay import replay as replayed

    where = daemons_socket(sock, timeout)
    capture = _load(file)
    try:
        result = replayed(capture, str(where), timeout=timeout, ignore_identity=ignore_identity)
    except UnreachableError as error:
        raise VhostcommError(f"{error}\n{advice(where, error)}") from None
    for difference in result.differences:
        print_line(difference)
    for note in result.notes:
        print_error(f"vhostcomm: {note}")
    print_line(
        f"{result.compared} {'reply' if result.compared == 1 else 'replies'} compared, {counted(len(result.differences), 'difference')}"
    )
    return 1 if result.differences else 0


def _load(path: Path) -> Capture:
    try:
        with path.open(encoding="utf-8", errors="backslashreplace") as lines:
            loaded = read_capture(lines, str(path))
    except OSError as error:
        raise VhostcommError(f"{path}: {error.strerror}") from None
    if loaded.cut_off:
        print_error(f"vhostcomm: {path}: the last line is cut off and left out")
    return loaded


@contextmanager
def _created(output: Path, file: Path, *, force: bool) -> Iterator[BinaryIO]:
    """Create the file of --output, unless it exists or is the capture itself. Remove it if it can't be written."""
    exists = os.path.exists(output)  # noqa: PTH110 - Path.exists may raise
    if exists and output.samefile(file):
        raise UsageError(f"{output} is the capture itself; choose another --output")
    try:
        is_device = exists and not output.is_file()  # or a pipe
        made = output.open("wb" if force or is_device else "xb")
    except FileExistsError:
        raise VhostcommError(
            f"{output}: already exists; choose another --output, or overwrite it with --force"
        ) from None
    except OSError as error:
        raise VhostcommError(f"{output}: {error.strerror}; choose another place with --output") from None
    try:
        with made:
            yield made
    except OSError as error:
        if output.is_file() and not output.is_symlink():  # not a device, nor /dev/stdout
            output.unlink()
        raise VhostcommError(f"{output}: {error.strerror}; choose another place with --output") from None

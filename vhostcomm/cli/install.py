"""`vhostcomm install`: install a `.pat` into a directory that `vhostcomm run` starts."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from vhostcomm.cli.flags import Place, parsed
from vhostcomm.cli.output import print_error, print_line
from vhostcomm.config import values
from vhostcomm.errors import QemuError, UsageError
from vhostcomm.install.installation import Installed, Options
from vhostcomm.install.installation import install as install_pat
from vhostcomm.install.pat import PUBLISHED
from vhostcomm.install.progress import Progress
from vhostcomm.linux.signals import ended_by_signals
from vhostcomm.qemu.disk.image import ImageFormat
from vhostcomm.qemu.disk.layouts import CONTAINER, LAYOUTS, Layout
from vhostcomm.qemu.disk.options import parse_shared

_LAYOUTS: Final[dict[str, Layout]] = {
    "container": CONTAINER,
    **{str(each.version): each for each in LAYOUTS if each.version in {8, 9} and not each.raid},
}


def install(
    pat: Annotated[Place, Parameter(help=f"DSM_VirtualDSM_….pat, of {PUBLISHED}. Nothing is downloaded.")],
    folder: Annotated[
        Place, Parameter(name=["--directory", "--folder"], help="The guest's directory; a new or an empty one.")
    ],
    *,
    data: Annotated[str, Parameter(metavar="SIZE", help="The size of the data disk (units K M G T, of 1024).")] = "16G",
    image_format: Annotated[
        ImageFormat, Parameter(name="--format", help="raw (sparse files) or qcow2.")
    ] = ImageFormat.RAW,
    layout: Annotated[
        Literal["container", "8", "9"],
        Parameter(
            help="The system disk's partitions: container as vdsm/virtual-dsm makes them, or a version of the guest's own "
            "table: 8 as in VDSM 7.0, 9 larger."
        ),
    ] = "container",
    disk_options: Annotated[
        str,
        Parameter(
            metavar="OPTIONS",
            show_default=False,
            help="Options of all disks for vhostcomm.toml, as for run, such as aio=io_uring.",
        ),
    ] = "",
    mac: Annotated[
        str,
        Parameter(
            metavar="MAC",
            show_default=False,
            help="The guest's MAC address; by default one under 02:11:32 that is derived from DIRECTORY's name.",
        ),
    ] = "",
    as_json: Annotated[
        bool,
        Parameter(name="--json", help="Print the progress and the result as JSON, one object a line."),
    ] = False,
) -> int:
    """Install a .pat into a directory: the boot, system and data disks, and vhostcomm.toml for vhostcomm run.

    Works as an ordinary user, without Docker, root or loop devices; needs e2fsprogs and sfdisk. A temporary directory
    beside DIRECTORY is renamed at the end, so DIRECTORY appears only when it is complete. If DIRECTORY already has a guest, it
    is listed and left unchanged.
    """
    size = parsed(values.size, "--data", data, "256G")
    try:
        parse_shared(disk_options)
    except QemuError as error:
        raise UsageError(f"--disk-options: {error}") from None
    address = parsed(values.mac, "--mac", mac, "02:11:32:00:00:01") if mac else ""
    options = Options(size, image_format, _LAYOUTS[layout], disk_options, address)
    with ended_by_signals(), _shown(as_json=as_json) as report:
        done = install_pat(str(pat), str(folder), options, report)
    if as_json:
        event = "installed" if done.is_new else "unchanged"
        made = {"event": event, "folder": str(done.folder), "files": list(done.files), "mac": done.mac or None}
        print_line(json.dumps(made))
    else:
        print_line("\n".join(_as_text(done, str(folder), Path(pat).name)))
    return 0


@contextmanager
def _shown(*, as_json: bool) -> Iterator[Callable[[Progress], None]]:
    """Show the progress: as JSON, as bars on a terminal, else a line for each step."""
    if not as_json and sys.stderr.isatty():
        with _bars() as report:
            yield report
        return
    step = ""
    percent = -1

    def report_line(progress: Progress) -> None:
        nonlocal step, percent
        now = progress.done * 100 // progress.total if progress.total else 0
        if as_json and (progress.step, now) != (step, percent):
            event = {"event": "progress", "step": progress.step, "done": progress.done, "total": progress.total}
            print_line(json.dumps(event), flush=True)
        elif progress.step != step and not as_json:
            size = f" ({progress.total / (1 << 20):.1f} MiB)" if progress.total else ""
            print_error(f"{progress.step}{size}")
        step, percent = progress.step, now

    yield report_line


@contextmanager
def _bars() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[size]}"), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def finish() -> None:
            for task in bars.tasks:
                bars.update(task.id, total=task.total or 1, completed=task.total or 1)

        def tell(progress: Progress) -> None:
            if progress.step not in tasks:
                finish()
                tasks[progress.step] = bars.add_task(progress.step, total=progress.total or None, size="")
            done, total = (size / (1 << 20) for size in (progress.done, progress.total))
            size = f"{done:.1f}/{total:.1f} MiB" if progress.total else ""
            bars.update(tasks[progress.step], completed=progress.done, size=size)

        yield tell
        finish()


def _as_text(done: Installed, folder: str, pat: str) -> Iterator[str]:
    if not done.is_new:
        yield f"{folder}: already has a guest, nothing was changed: {', '.join(done.files)}"
    else:
        yield f"{folder}: {', '.join(done.files)}, from {pat}; the guest's MAC address is {done.mac}"
        yield "Whether you may run this system, and where, depends on its licence."
    yield f"Start it: vhostcomm run {shlex.quote(folder)}"

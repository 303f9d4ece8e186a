"""`vhostcomm config`: validate, show, init."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vhostcomm.cli.flags import ConfigFiles, SettingFlags, Socks, Watch, given
from vhostcomm.cli.guest_folder import shown
from vhostcomm.cli.help import group_of_verbs
from vhostcomm.cli.output import print_json, print_line, print_remark, print_table
from vhostcomm.config.load import check, load
from vhostcomm.config.models import effective, several
from vhostcomm.config.template import template
from vhostcomm.errors import UsageError, VhostcommError

app = group_of_verbs("config", "Validate or show the configuration, or write a commented file to start from.")


@app.command(usage="Usage: vhostcomm config validate [OPTIONS] [FILE...]")
def validate(
    *file: Annotated[Path, Parameter(help="A file or directory; the same as --config.")],
    sock: Socks = None,
    config: ConfigFiles = None,
    watch: Watch = None,
    settings: SettingFlags = None,
) -> None:
    """Check a configuration as `serve` does, without serving it.

    Exit status: 0 valid; 2 invalid, with the place, the reason and an example.
    """
    from vhostcomm.cli.machine_options import check_machines

    if file and config:
        raise UsageError("the file is given twice: give FILE or --config")
    loaded = load(file or config or (), socks=sock or (), watch=watch or (), flags=given(settings))
    check(loaded)
    check_machines(loaded)
    for warning in loaded.warnings:
        print_remark(warning)
    names = [each.name for each in loaded.guests]
    folders = f"; watched: {', '.join(map(str, loaded.watch))}" if loaded.watch else ""
    print_line(f"{shown(file or config or ())}: valid; guests: {several(names) or 'none'}{folders}")


@app.command
def show(
    *,
    sock: Socks = None,
    config: ConfigFiles = None,
    watch: Watch = None,
    settings: SettingFlags = None,
    json: Annotated[bool, Parameter(help="Print JSON.")] = False,
) -> None:
    """Show every value that `serve` would use with the same flags, and its source.

    The section guest has the values of guests that aren't listed, such as those that appear in a watched directory.
    """
    from vhostcomm.cli.machine_options import check_machines

    loaded = load(config, socks=sock or (), watch=watch or (), flags=given(settings))
    check_machines(loaded)
    for warning in loaded.warnings:
        print_remark(warning)
    sections = effective(loaded, as_text=not json)
    if json:
        print_json(sections | {"watch": list(map(str, loaded.watch)), "watch_sources": list(loaded.watch_sources)})
        return
    for name, section in sections.items():
        print_line(f"[{name}]")
        rows = [(key, str(each["value"]), str(each["source"])) for key, each in section.items()]
        print_table(("", "", ""), rows, below=True)
        print_line()
    for path, source in zip(loaded.watch, loaded.watch_sources, strict=True):
        print_line(f"watch  {path}  {source}")


@app.command(usage="Usage: vhostcomm config init [FILE]")
def init(
    file: Annotated[Path, Parameter(help="The file to write; an existing file is not overwritten.")] = Path(
        "vhostcomm.toml"
    ),
) -> None:
    """Write a commented configuration file with every setting and its default."""
    try:
        with file.open("x") as made:
            made.write(template())
    except FileExistsError:
        raise VhostcommError(f"{file} already exists; choose another file") from None
    except FileNotFoundError:
        make = f"mkdir -p {shlex.quote(str(file.parent))}"
        raise VhostcommError(f"{file}: there is no directory {file.parent}; make it: {make}") from None
    except OSError as error:
        raise VhostcommError(f"{file}: {error.strerror}; choose another file") from None
    print_line(f"{file} written; next: vhostcomm serve --config {shlex.quote(str(file))}")

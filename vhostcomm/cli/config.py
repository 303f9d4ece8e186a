"""`vhostcomm config`: show, init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from vchannel import NEVER
from vhostcomm.cli.flags import ConfigFile, GuestFlags, HostFlags, ServeFlags, Socks, Watch, given
from vhostcomm.cli.output import print_error, print_json, print_line, print_table
from vhostcomm.config.load import load
from vhostcomm.config.models import effective
from vhostcomm.config.template import template
from vhostcomm.errors import VhostcommError

app = App(name="config", help="Show the effective configuration, or write a commented file to start from.")


@app.command
def show(
    *,
    sock: Socks = None,
    config: ConfigFile = None,
    watch: Watch = None,
    host: HostFlags = None,
    guest: GuestFlags = None,
    service: ServeFlags = None,
    json: Annotated[bool, Parameter(negative=(), help="Print JSON.")] = False,
) -> None:
    """Print every value that `serve` would use with the same flags, and where it came from.

    Below guest stands what goes for guests that aren't listed, such as those that appear in a watched folder.
    """
    loaded = load(config, socks=sock or (), watch=watch or (), flags=given(host, guest, service))
    for warning in loaded.warnings:
        print_error(f"vhostcomm: {warning}")
    sections = effective(loaded)
    if json:
        print_json(sections | {"watch": [str(path) for path in loaded.watch]})
        return
    for name, section in sections.items():
        print_line(f"[{name}]")
        rows = [(key, _shown(key, each["value"]), str(each["source"])) for key, each in section.items()]
        print_table(("", "", ""), rows)
        print_line()
    for path in loaded.watch:
        print_line(f"watch  {path}")


@app.command
def init(
    file: Annotated[Path, Parameter(help="The file to write; one that exists is left alone.")] = Path("vhostcomm.toml"),
) -> None:
    """Write a commented configuration file with every setting and its default."""
    try:
        with file.open("x") as made:
            made.write(template())
    except FileExistsError:
        raise VhostcommError(f"{file}: is there already; name another file") from None
    except OSError as error:
        raise VhostcommError(f"{file}: {error.strerror}") from None
    print_line(f"{file} is written; next: vhostcomm serve --config {file}")


def _shown(key: str, value: object) -> str:
    if key == "update_deadline" and value == NEVER:
        return f"never ({value})"
    return "" if value is None else str(value)

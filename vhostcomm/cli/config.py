"""`vhostcomm config`: show, init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import App, Parameter

from vchannel import NEVER
from vhostcomm.cli.flags import ConfigFile, GuestFlags, HostFlags, ServeFlags, Socks, Watch, given
from vhostcomm.cli.output import print_error, print_json, print_line, print_table
from vhostcomm.config import Config, Sources, build
from vhostcomm.config_template import template
from vhostcomm.errors import VhostcommError
from vhostcomm.identity import GuestIdentity, derived_uuid
from vhostcomm.load import load

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
    sections: dict[str, tuple[Any, Sources]] = {"host": (loaded.host, loaded.host_sources)}
    if loaded.watch or not loaded.guests:
        sections["guest"] = _others(loaded)
    for each in loaded.guests:
        sections[f"guests.{each.name}"] = (each.identity, each.sources)
    sections["serve"] = (loaded.service, loaded.service_sources)
    where = {f"guests.{each.name}": str(each.address) for each in loaded.guests}
    if json:
        print_json(
            {
                name: ({"sock": {"value": where[name], "source": ""}} if name in where else {})
                | {
                    key: {"value": _plain(key, value), "source": sources.get(key, "default")}
                    for key, value in attrs.asdict(model).items()
                }
                for name, (model, sources) in sections.items()
            }
            | {"watch": [str(path) for path in loaded.watch]}
        )
        return
    for name, (model, sources) in sections.items():
        print_line(f"[{name}]")
        rows = [("sock", where[name], "")] if name in where else []
        rows += [(key, _shown(key, value), sources.get(key, "default")) for key, value in attrs.asdict(model).items()]
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


def _others(config: Config) -> tuple[GuestIdentity, Sources]:
    """What a guest is told that is not listed."""
    identity, sources = build(GuestIdentity, config.guest_layers.get("", {}))
    if not identity.uuid:
        identity = attrs.evolve(identity, uuid=derived_uuid("g", identity.serial))
        sources["uuid"] = "the socket's name if that is one, else derived from the guest's serial number"
    return identity, sources


def _shown(key: str, value: object) -> str:
    plain = _plain(key, value)
    if key == "update_deadline" and value == NEVER:
        return f"never ({value})"
    return "" if plain is None else str(plain)


def _plain(key: str, value: object) -> Any:
    return f"{value:04o}" if key == "socket_mode" else value

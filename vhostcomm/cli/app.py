"""The command line's verbs. Each is imported when it is used: a verb must not pay for the others."""

from __future__ import annotations

from cyclopts import App, Parameter

from vhostcomm.cli.help import HelpFormatter, shown_default
from vhostcomm.cli.versions import version_text

app = App(
    name="vhostcomm",
    help="The host side of Virtual DSM's vchannel: answers what a guest asks its host.",
    version=version_text,
    version_flags=["--version"],
    version_format="plaintext",
    help_formatter=HelpFormatter(),
    default_parameter=Parameter(show_default=shown_default),
)

app.command("vhostcomm.cli.serve:serve")
app.command("vhostcomm.cli.run:run", usage="Usage: vhostcomm run [OPTIONS] [-- QEMU-ARGUMENT...]")
app.command("vhostcomm.cli.probe:probe")
app.command("vhostcomm.cli.config:app", name="config")
for _verb in ("guests", "info", "shutdown", "reboot", "resume", "freeze", "thaw", "reload"):
    app.command(f"vhostcomm.cli.guests:{_verb}")
app.command("vhostcomm.cli.guests:call", usage="Usage: vhostcomm call [OPTIONS] [GUEST] COMMAND [DATA]")
app.command("vhostcomm.cli.guests:events")
app.command("vhostcomm.cli.capture:app", name="capture")
app.command("vhostcomm.cli.disk:app", name="disk")
app.command("vhostcomm.cli.snippet:app", name="snippet")
app.command("vhostcomm.cli.completion:completion")

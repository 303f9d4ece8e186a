"""Start a program from the archive, chosen by the file's name or the first word."""

# Old Pythons must reach the message, so the syntax must be old too.
import os
import sys

TREES = {}  # type: dict[str, str] # Python version -> directory of its bytecode
DEFAULT = "vhostcomm"


def held(archive: str) -> str:
    """Return a path of the archive that stays valid when an upgrade replaces the file under a running daemon."""
    path = "/proc/self/fd/%d" % os.open(archive, os.O_RDONLY)
    return path if os.path.exists(path) else archive


def main() -> None:
    if sys.version_info < (3, 11):
        sys.exit("%s: Python 3.11 or later is needed; this is %s" % (DEFAULT, sys.version.split()[0]))
    archive = sys.path[0] = held(sys.path[0])
    tree = TREES.get("%d.%d" % sys.version_info[:2])
    if tree and sys.implementation.name == "cpython":
        sys.path.insert(0, os.path.join(archive, tree))
    called = os.path.basename(sys.argv[0])
    program = called if called in ("qemu-host", "vdsm_run", "vhostcomm") else DEFAULT
    if program == "qemu-host" and sys.argv[1:] and sys.argv[1][:1] not in ("-", ""):
        program = "vhostcomm"  # qemu-host has only flags, so a first word is a verb
    if program == "qemu-host":
        from vhostcomm.cli.qemu_host import main as run
    elif program == "vdsm_run":
        from vhostcomm.cli import vdsm_run as run
    else:
        from vhostcomm.cli import main as run
    run()


main()

"""Start a program from the archive: the one that the file's name or the first word asks for."""

# Old Pythons must get as far as the message: no syntax later than theirs.
import os
import sys

TREES = {}  # type: dict[str, str] # by version of Python: the folder in the archive that has its bytecode
DEFAULT = "vhostcomm"


def main() -> None:
    if sys.version_info < (3, 11):
        sys.exit("%s: Python 3.11 or later is needed; this is %s" % (DEFAULT, sys.version.split()[0]))
    archive = sys.path[0]
    tree = TREES.get("%d.%d" % sys.version_info[:2])
    if tree and sys.implementation.name == "cpython":
        sys.path.insert(0, os.path.join(archive, tree))
    called = os.path.basename(sys.argv[0])
    program = called if called in ("qemu-host", "vdsm_run", "vhostcomm") else DEFAULT
    if program == "qemu-host" and sys.argv[1:] and sys.argv[1][:1] not in ("-", ""):
        program = "vhostcomm"  # qemu-host has flags alone, so a word in front is a verb
    if program == "qemu-host":
        from vhostcomm.cli.qemu_host import main as run
    elif program == "vdsm_run":
        from vhostcomm.cli import vdsm_run as run
    else:
        from vhostcomm.cli import main as run
    run()


main()

"""``python -m vhostcomm``."""

from vhostcomm.cli import main

main()

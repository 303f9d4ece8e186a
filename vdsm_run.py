#!/usr/bin/env python3
"""One-shot launcher: starts a guest's QEMU and answers what it asks. The same as ``vhostcomm run``."""

from vhostcomm.cli import main

if __name__ == "__main__":
    main("run")

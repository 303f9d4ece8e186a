#!/usr/bin/env python3
"""One-shot launcher: starts a guest's QEMU and answers what it asks. The same as ``vhostcomm run``."""

import os
import sys
from pathlib import Path

try:
    from vhostcomm.cli import main
except ImportError as error:
    # Run from a checkout: `make` has installed its dependencies into .venv.
    made = Path(__file__).resolve().with_name(".venv") / "bin" / "python"
    if not made.exists() or Path(sys.prefix) == made.parents[1]:
        sys.exit(f"vdsm_run.py: {error}; in a checkout run `make venv` first, elsewhere `pip install vhostcomm`")
    os.execv(made, [str(made), __file__, *sys.argv[1:]])  # noqa: S606 - no shell is wanted

if __name__ == "__main__":
    main("run")

"""`make fuzz`: coverage-guided fuzzing of each target for a limited time. Inputs that fail are kept in `.fuzz/`."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = Path(__file__).with_name("corpus")
FOUND: Final = ROOT / ".fuzz"
LARGEST: Final = 4096
"""The most bytes of an input."""


def main(seconds: str, *names: str) -> int:
    """Fuzz the named targets, or all, each for that number of seconds. Returns an exit status."""
    if importlib.util.find_spec("atheris") is None:
        python = f"Python {'.'.join(map(str, sys.version_info[:2]))} on {platform.machine()}"
        print(f"Nothing was fuzzed: atheris was not found for {python}. PyPI has it for Python 3.11 to 3.13 on x86_64.")
        return 0
    from tests.fuzz.targets import TARGETS

    for name in names or TARGETS:
        inputs = FOUND / name
        inputs.mkdir(parents=True, exist_ok=True)
        print(f"{name}: {seconds} seconds", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", "one", name, str(inputs), str(CORPUS / name)]
        options = [f"-max_total_time={seconds}", f"-max_len={LARGEST}", "-timeout=10", f"-artifact_prefix={inputs}-"]
        if subprocess.run(
            [*command, *options, "-print_final_stats=1", "-verbosity=0"], cwd=ROOT, check=False
        ).returncode:
            print(
                f"{name}: an input fails, {inputs}-crash-… has it. Fix the fault, and move the input to {CORPUS / name}."
            )
            return 1
    return 0


def one(name: str, *options: str) -> None:
    """Fuzz a target until its time is over, and end the process."""
    import atheris

    with atheris.instrument_imports(include=["vchannel", "vhostcomm.capture"]):
        from tests.fuzz.targets import TARGETS

    atheris.Setup([name, *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1] == "one":
        one(*sys.argv[2:])
    sys.exit(main(*sys.argv[1:]))

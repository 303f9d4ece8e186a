"""``make demo``: a real kernel boots in QEMU and asks, first without a daemon, then with vhostcomm."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.serving import started

ROOT: Final = Path(__file__).parents[1]
SERIAL: Final = "1234ABC567890"
TIMEOUT: Final = 120
COLOURS: Final = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if COLOURS else text


def say(text: str) -> None:
    print(text, flush=True)


def head(text: str) -> None:
    say("\n" + paint(text, "1"))


def images() -> dict[str, str]:
    head("Building the guest: a Debian kernel, busybox, an agent that asks")
    built = subprocess.run(
        [ROOT / "tests/guest/build.sh", "--print-paths"], stdout=subprocess.PIPE, text=True, check=False
    )
    if built.returncode:
        raise SystemExit("The guest could not be built; the reason is above.")
    return dict(line.split("=", 1) for line in built.stdout.splitlines())


def machine(paths: dict[str, str], folder: Path) -> list[str]:
    """Return the flags of both boots: a boot disk at PCI slot 0xa and the other disks after it, as on the genuine host."""
    return [
        "--boot", paths["BOOT_DISK"], "--system", paths["SYSTEM_DISK"], "--data", paths["DATA_DISK"], "--snapshot",
        "--sock", str(folder / "vchannel"), "--memory", "512M", "--guest-serial", SERIAL,
    ]  # fmt: skip


def lines_of(path: Path, process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Yield the lines of a growing file while its process runs."""
    end = time.monotonic() + TIMEOUT
    seen = 0
    while time.monotonic() < end:
        text = path.read_text(errors="replace") if path.exists() else ""
        *whole, _ = text[seen:].split("\n")
        for line in whole:
            seen += len(line) + 1
            yield line.strip()
        if process.poll() is not None and not whole:
            return
        time.sleep(0.02)
    raise SystemExit("the guest did not get there in time; is the machine very busy?")


def without(paths: dict[str, str], folder: Path) -> None:
    head("1. Without vhostcomm: the guest asks, and nobody answers")
    console = folder / "console-without"
    words = [*machine(paths, folder), "--serial-console", str(console), "--log-level", "error", "--dry-run"]
    words += ["--", "-fw_cfg", "name=opt/vchannel,string=vchannel.timeout=0.5"]
    printed = subprocess.run(
        [sys.executable, ROOT / "vdsm_run.py", *words], stdout=subprocess.PIPE, text=True, check=True
    )
    # QEMU warns that it can't connect, which is intended here.
    quiet = subprocess.DEVNULL
    complaints = 0
    with started(["bash", "-c", f"exec {printed.stdout}"], stdin=quiet, stderr=quiet) as qemu:
        for line in lines_of(console, qemu):
            if "Failed" in line or "newer than" in line:
                say("   " + paint(line, "31"))
                complaints += "vdsm_serial.c:128" in line
            elif line.startswith(("sd ", "Partition", "vchannel: port")):
                say("   " + paint(line, "2"))
            if complaints == 2:
                break
    if complaints < 2:
        raise SystemExit("the guest did not complain as it should")
    say("   and so on for ever: synoagentregisterd never gives up, install.cgi has.")


def with_it(paths: dict[str, str], folder: Path) -> None:
    words = [*machine(paths, folder), "--serial-console", str(folder / "console-with"), "--log-format", "json"]
    head("2. With it: vdsm_run.py starts the same machine, and answers")
    shown = [f"{words[place]} …{words[place + 1][-12:]}" for place in range(0, 6, 2)]
    say("   " + paint(f"vdsm_run.py {' '.join(shown)} … --guest-serial {SERIAL}", "2"))
    command = [sys.executable, str(ROOT / "vdsm_run.py"), *words]
    with started(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, bufsize=0) as run:
        answers = 0
        for line in log_of(run.stderr):
            match line["event"]:
                case "QEMU runs":
                    say(f"   QEMU {line['version'].split()[0]} runs as process {line['pid']}; the kernel boots")
                case "KVM does not work here, using TCG, which is much slower":
                    say("   KVM does not work here, so QEMU interprets")
                case "guest ready":
                    say("   the guest is there\n")
                    say("   " + paint(f"{'asks':22} is answered", "4"))
                case "guest asked":
                    answers += 1
                    say(f"   {line['command']:22} {paint(line['answer'], '32')}")
                    if line["command"].startswith("15 "):
                        say("\n   all asked and answered; sending SIGINT, as Ctrl-C does")
                        run.send_signal(signal.SIGINT)
                case "stopping QEMU":
                    say(f"   stopping by {line['stage']}")
                case "QEMU ended":
                    say(f"   QEMU ended: {line['why']}")
                case _:
                    pass
        status = run.wait(TIMEOUT)
    for text in (folder / "console-with").read_text(errors="replace").splitlines():
        if re.search(r"vchannel: (request 6|powering off)|reboot: Power down", text):
            say("   " + paint(f"console: {text.strip()}", "2"))
    head(f"3. {answers} questions asked, {answers} answered; exit status {status}")
    if status or answers < 10:
        raise SystemExit("that is not as it should be")
    say("   The guest is a stand-in: a real kernel in a real QEMU, and an agent")
    say("   written from protocol/README.md alone.")


def log_of(stream: Any) -> Iterator[dict[str, str]]:
    """Yield the lines of a log until its end, which has a time limit. Lines that are no JSON are printed."""
    end = time.monotonic() + TIMEOUT
    while True:
        if not select.select([stream], [], [], max(0.0, end - time.monotonic()))[0]:
            raise SystemExit(f"vhostcomm did not end within {TIMEOUT} s; is the machine very busy?")
        if not (raw := stream.readline()):
            return
        try:
            yield json.loads(raw)
        except ValueError:
            say("   " + paint(raw.decode(errors="replace").rstrip(), "31"))


def without_qemu(folder: Path) -> None:
    """Show what is possible with only Python: `vhostcomm probe` asks the same questions."""
    head("QEMU or a tool to build the guest is missing: no kernel boots")
    say("   vhostcomm probe asks in its place.")
    socket = folder / "nas"
    vhostcomm = [sys.executable, "-m", "vhostcomm"]
    probe = [*vhostcomm, "probe", "--sock", str(socket)]
    serve = [
        *vhostcomm,
        "serve",
        "--sock",
        f"nas={socket}",
        "--control",
        "none",
        "--guest-serial",
        SERIAL,
        "--log-format",
        "json",
    ]
    with started(serve, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=ROOT, bufsize=0) as daemon:
        if not any(line["event"] == "serving" for line in log_of(daemon.stdout)):
            raise SystemExit("vhostcomm serve did not start")
        subprocess.run(probe, cwd=ROOT, check=True)
    say("\nInstall what is listed above, then make demo boots a real kernel.")


def next_steps() -> None:
    head("Next")
    say("   .venv/bin/vhostcomm --help      what else there is")
    say("   docs/README.md                  QEMU, libvirt, Proxmox VE, containers")
    say("   make test                       every check and test")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, _: sys.exit(128 + number))
    # In a script's background job, the signal is ignored. The launcher would inherit that, but must be stopped by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="vhostcomm-demo-") as folder:
        check = [str(ROOT / "tests/tools.sh"), "--check", "demo"]
        if subprocess.run(check, stderr=subprocess.DEVNULL, check=False).returncode:
            without_qemu(Path(folder))
            next_steps()
            return
        paths = images()
        begin = time.monotonic()
        without(paths, Path(folder))
        with_it(paths, Path(folder))
        say(f"   Took {time.monotonic() - begin:.0f} s.")
    next_steps()


if __name__ == "__main__":
    main()

"""fio as a server in the stand-in guest. A client on this host sends it jobs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

GUEST_PORT: Final = 8765
READY: Final = "fio: ready"
"""The console's line when the server listens."""

_FIRST_PROCESS: Final = f"""\
#!/bin/sh
export PATH=/bin LD_LIBRARY_PATH=/lib
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
for list in machine disks network; do
    while read -r module; do load "/lib/modules/$module"; done <"/etc/modules/$list"
done
for controller in /sys/bus/pci/devices/*/virtio*/host*; do
    until block=$(echo "$controller"/target*/*/block/*) && [ -e "$block" ]; do usleep 50000; done
    slot=${{controller#*:*:}}
    busybox ln -s "${{block##*/}}" "/dev/slot-${{slot%%.*}}"
done
until [ -e /sys/class/net/eth0 ]; do usleep 50000; done
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
{{
    until grep -q ":{GUEST_PORT:04X} 00000000:0000 0A" /proc/net/tcp; do usleep 50000; done
    echo "{READY}"
}} &
fio --server=ip4:10.0.2.15,{GUEST_PORT}
"""


def initramfs(standin: Path, folder: Path) -> Path:
    """Append fio, its libraries and another first process, `rdinit=/fio`, to the stand-in's initramfs.

    The guest's disks are `/dev/slot-0c` and so on, by their PCI slots.

    Args:
        standin: the stand-in guest's initramfs.
        folder: for the result; needs twice fio's size, some 200 MB.
    """
    fio = shutil.which("fio")
    assert fio
    tree = folder / "fio-tree"
    for each in ("bin", "lib", "lib64", "tmp"):
        (tree / each).mkdir(parents=True)
    shutil.copy(fio, tree / "bin/fio")
    libraries = subprocess.run(["ldd", fio], stdout=subprocess.PIPE, text=True, check=True).stdout
    for library in re.findall(r"(/\S+) \(0x", libraries):
        shutil.copy(library, tree / ("lib64" if "ld-linux" in library else "lib"))
    (tree / "fio").write_text(_FIRST_PROCESS)
    (tree / "fio").chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    pack = ["cpio", "--quiet", "-o", "-H", "newc", "-R", "+0:+0"]
    made = folder / "initramfs-fio"
    first = standin.read_bytes()
    with made.open("wb") as file:
        file.write(first + bytes(-len(first) % 4))  # an uncompressed archive must begin at a multiple of four
        file.flush()
        subprocess.run(pack, cwd=tree, input=names.encode(), stdout=file, check=True)
    shutil.rmtree(tree)
    return made


def job(name: str, **options: object) -> str:
    """Return a job's file. Options are fio's."""
    return "\n".join([f"[{name}]", *(f"{key}={value}" for key, value in options.items()), ""])


def client(port: int, file: Path, *words: str) -> Sequence[str]:
    """Return the command that runs a job in the guest, through the port of this host that is forwarded to the server."""
    return ["fio", f"--client=ip4:127.0.0.1,{port}", "--eta=never", *words, str(file)]

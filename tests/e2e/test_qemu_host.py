"""A container's unchanged scripts, with `qemu-host` and a real guest."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.launched import BOOT_TIMEOUT, Console, Images, command_of
from tests.e2e.moved import machine
from tests.qemu_host.running import QEMU_HOST, QemuHost
from tests.serving import started, until

POLL = """\
#!/usr/bin/env bash
# In the program's folder: asks until the guest has returned its web page's address, and writes the address to a file.
set -eu
cd "$(dirname "$0")"
while true; do
    sleep 0.5
    json=$(curl -m 20 -sS --unix-socket api.sock 'http://localhost/read?command=10') || continue
    if [[ $(jq -r .status <<<"$json") != success ]]; then
        message=${json##*message\\": \\"}
        echo "not yet: ${message%%\\"*}"
        continue
    fi
    port=$(jq -r '.data.data.dsm_setting.data.http_port' <<<"$json")
    ip=$(jq -r '.data.data.ip.data[] | select(.name=="eth0" and has("ip")).ip' <<<"$json")
    [[ $port != null && -n $ip ]] || continue
    echo "http://$ip:$port" >address
    exit 0
done
"""

STOP = """\
#!/usr/bin/env bash
# Shuts the guest down and waits for QEMU.
set -eu
cd "$(dirname "$0")"
json=$(curl -sk -m 92 --unix-socket api.sock 'http://localhost/read?command=6&timeout=90')
if [[ $(jq -r .status <<<"$json") != success ]]; then
    message=${json##*message\\": \\"}
    echo "not stopped: ${message%%\\"*}"
    exit 1
fi
for _ in {1..105}; do
    kill -0 "$1" 2>/dev/null || exit 0
    sleep 1
done
exit 2
"""


@pytest.mark.any_qemu
def test_scripts_of_a_container_print_the_address_and_stop_the_guest(tmp_path: Path, images: Images) -> None:
    for name, text in (("print.sh", POLL), ("stop.sh", STOP)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "qemu-host").symlink_to(QEMU_HOST)
    console = Console(tmp_path / "console")
    with QemuHost(tmp_path, "-guestsn=1234abc567890", program=tmp_path / "qemu-host") as host:
        words = images.direct()
        words[words.index("--net") + 1] = "user"
        command = command_of(*words, "--sock", str(host.sock), "--serial-console", str(console.path))
        with started(command, stdin=subprocess.DEVNULL) as qemu:
            assert "1234ABC567890" in console.says("vchannel: answer 5 guest_serial")
            console.says("vchannel: ready")
            until((tmp_path / "address").exists, "the guest's address")
            address = (tmp_path / "address").read_text()
            with started([tmp_path / "stop.sh", str(qemu.pid)], stdout=subprocess.PIPE) as stop:
                assert qemu.wait(BOOT_TIMEOUT) == 0
                output, _ = stop.communicate(timeout=BOOT_TIMEOUT)
            assert (stop.returncode, output) == (0, b"")
    assert address.startswith("http://")
    assert address.strip().endswith(":5000")
    console.says("vchannel: request 6 poweroff")
    console.kept_to_the_protocol()
    assert "Request: Poweroff [6]" in host.trace


def test_a_containers_stop_waits_for_a_guest_that_boots(tmp_path: Path, images: Images) -> None:
    stop = tmp_path / "stop.sh"
    stop.write_text(STOP)
    stop.chmod(0o755)
    with QemuHost(tmp_path) as host, machine(tmp_path, images, host.sock, acpi="wait") as qemu:
        qemu.console.says("acpi: waiting for")  # the agent starts when the power button is pressed
        with started([stop, str(qemu.process.pid)], stdout=subprocess.PIPE) as stopping:
            until(lambda: any("[10]" in line for line in host.trace), "the question whether the guest is up")
            qemu.monitor.do("system_powerdown")
            qemu.ends()
            output, _ = stopping.communicate(timeout=BOOT_TIMEOUT)
        assert (stopping.returncode, output) == (0, b"")
    qemu.console.says("vchannel: request 6 poweroff")
    qemu.console.kept_to_the_protocol()

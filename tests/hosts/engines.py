"""A container engine for tests alone, with only the images that the Containerfile makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import frozen

from tests.hosts.folders import ROOT, copy_of, debian
from tests.needs import need
from tests.serving import started, until

BUILD_TIMEOUT: Final = 900.0
TIMEOUT: Final = 120.0
ENGINES: Final = ("docker", "podman")
IMAGES: Final = {"serve": "vhostcomm", "run": "vhostcomm-run", "qemu-host": "vhostcomm-qemu-host"}
"""The image of each target, as the Containerfile's first lines name them."""

_BASE: Final = "docker.io/library/debian:12-slim"
_DAEMON_JSON: Final = {"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 20000, "Hard": 20000}}}
_CONTAINERS_CONF: Final = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
cgroup_manager = "cgroupfs"
compat_api_enforce_docker_hub = false
events_logger = "file"
runtime = "runc"
[network]
network_config_dir = "{work}/networks"
"""
_STORAGE_CONF: Final = """\
[storage]
driver = "overlay"
graphroot = "{work}/data"
runroot = "{work}/run"
"""


@frozen
class Engine:
    """An engine's client; `sock` is where the engine serves Docker's API."""

    program: str
    sock: Path
    environment: Mapping[str, str]

    def run(self, *words: str | Path, check: bool = True, timeout: float = TIMEOUT) -> str:
        """A command of the client; returns what it prints."""
        done = self.tried(*words, timeout=timeout)
        assert not check or done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout.strip()

    def tried(self, *words: str | Path, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
        """A command of the client that may fail."""
        command = [self.program, *map(str, words)]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def inspect(self, what: str) -> dict[str, Any]:
        """What the engine reports about an image or a container."""
        (found,) = json.loads(self.run("inspect", what))
        assert isinstance(found, dict)
        return found

    def log(self, container: str) -> str:
        """What a container has written."""
        done = self.tried("logs", container)
        return done.stdout + done.stderr

    def compose(self, project: Path, *words: str) -> None:
        """A command of docker-compose, for the file in a folder."""
        file = str(project / "compose.yaml")
        done = subprocess.run(
            ["docker-compose", "--project-name=tried", "--file", file, *words],
            env=self.environment, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    @contextmanager
    def container(self, image: str, *words: str | Path, command: tuple[str | Path, ...] = ()) -> Iterator[str]:
        """A running container; returns its id. It is removed at the end, with its volumes."""
        container = self.run("run", "--detach", *words, image, *command)
        try:
            yield container
        finally:
            self.run("rm", "--force", "--volumes", container)


@contextmanager
def _network_kept(bridge: str) -> Iterator[None]:
    """Undo an engine's changes to this machine's network: remove its bridge, and restore the packet filter's rules."""
    if Path("/sys/class/net", bridge).exists():
        pytest.skip(f"missing right: another engine has the bridge {bridge}, and the rules for it")
    tables = [
        subprocess.run(["iptables-save", "-t", table], capture_output=True, text=True, check=True).stdout
        for table in ("filter", "nat")
    ]
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)
        for rules in tables:
            subprocess.run(["iptables-restore"], input=rules, text=True, check=True)


@contextmanager
def engine(program: str, work: Path) -> Iterator[Engine]:
    """Start an engine with its data in a folder; only its log is left afterwards."""
    if program == "docker":
        need("dockerd", "docker", "docker-compose")
        with _network_kept("docker0"):
            yield from _docker(work)
    else:
        need("podman", "runc", "docker-compose")
        with _network_kept("podman0"):
            yield from _podman(work)


def _docker(work: Path) -> Iterator[Engine]:
    settings, sock = work / "daemon.json", work / "docker.sock"
    settings.write_text(json.dumps(_DAEMON_JSON))
    docker = Engine("docker", sock, os.environ | {"DOCKER_HOST": f"unix://{sock}", "DOCKER_BUILDKIT": "0"})
    command = ["dockerd", f"--config-file={settings}", f"--host=unix://{sock}", f"--pidfile={work / 'pid'}"]
    command += [f"--data-root={work / 'data'}", f"--exec-root={work / 'exec'}"]
    try:
        yield from _serving(docker, command, work)
    finally:
        subprocess.run(["umount", work / "exec/netns/default"], capture_output=True, check=False)
        shutil.rmtree(work / "data", ignore_errors=True)


def _podman(work: Path) -> Iterator[Engine]:
    """Podman has no daemon; the service is for docker-compose."""
    sock = work / "podman.sock"
    environment = os.environ | {"DOCKER_HOST": f"unix://{sock}"}
    for name, text in {"CONTAINERS_CONF": _CONTAINERS_CONF, "CONTAINERS_STORAGE_CONF": _STORAGE_CONF}.items():
        file = work / f"{name.lower()}"
        file.write_text(text.format(work=work))
        environment[name] = str(file)
    podman = Engine("podman", sock, environment)
    command = ["podman", "system", "service", "--time=0", f"unix://{sock}"]
    try:
        yield from _serving(podman, command, work)
    finally:
        podman.run("rm", "--all", "--force", "--volumes", check=False)
        subprocess.run(["umount", work / "data/overlay"], capture_output=True, check=False)
        shutil.rmtree(work / "data", ignore_errors=True)


def _serving(client: Engine, command: list[str], work: Path) -> Iterator[Engine]:
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(command, env=client.environment, stdout=log, stderr=log)
    try:
        until(lambda: client.sock.is_socket() or process.poll() is not None, client.program, TIMEOUT)
        if process.poll() is not None:
            why = (work / "log").read_text().strip().splitlines()[-1]
            pytest.skip(f"missing right: {client.program} does not start: {why}")
        yield client
    finally:
        process.terminate()
        process.wait(TIMEOUT)


def build(client: Engine, work: Path) -> None:
    """Build every target of the Containerfile, with a Debian folder instead of the registry's image."""
    with copy_of(debian("image", ["ca-certificates"]), work) as root:
        # The network's own configuration: certificates, apt's and pip's settings.
        certificates = Path("/etc/ssl/certs/ca-certificates.crt")
        if certificates.exists():
            shutil.copy(certificates, root / "etc/ssl/certs")
        settings = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
        kept = [line for line in settings.splitlines() if line.startswith("Acquire::")]
        (root / "etc/apt/apt.conf.d/99network").write_text("\n".join(kept) + "\n")
        if Path("/etc/pip.conf").exists():
            shutil.copy("/etc/pip.conf", root / "etc")
        with started(["tar", "-C", root, "--exclude=./dev/*", "-c", "."], stdout=subprocess.PIPE) as tar:
            command = [client.program, "import", "-", _BASE]
            subprocess.run(command, stdin=tar.stdout, env=client.environment, capture_output=True, check=True)
    given = [name for name in ("PIP_CERT", "PIP_INDEX_URL", "http_proxy", "https_proxy") if name in os.environ]
    arguments = [f"--build-arg={name}={os.environ[name]}" for name in given]
    if client.program == "podman":
        arguments += ["--format=docker", "--isolation=chroot"]
    for target, image in IMAGES.items():
        client.run(
            "build", "--quiet", "--network=host", *arguments, "--file", ROOT / "Containerfile", "--tag", image,
            "--target", target, ROOT, timeout=BUILD_TIMEOUT,
        )  # fmt: skip

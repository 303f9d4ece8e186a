"""A Docker daemon of the tests' own, with nothing in it but the images that the Containerfile makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import frozen

from tests.hosts.folders import ROOT, copy_of, debian
from tests.serving import started, until

BUILD_PATIENCE: Final = 900.0
PATIENCE: Final = 120.0
IMAGES: Final = {"serve": "vhostcomm", "run": "vhostcomm-run", "qemu-host": "vhostcomm-qemu-host"}
"""The image of each target, as the Containerfile's first lines name them."""

_SETTINGS: Final = {"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 20000, "Hard": 20000}}}


@frozen
class Docker:
    """Where the daemon listens."""

    sock: Path

    def run(self, *words: str | Path, check: bool = True, patience: float = PATIENCE) -> str:
        """A command of the client; returns what it prints."""
        done = subprocess.run(
            ["docker", *map(str, words)],
            env=self.environment, capture_output=True, text=True, timeout=patience, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"DOCKER_HOST": f"unix://{self.sock}", "DOCKER_BUILDKIT": "0"}

    def inspect(self, what: str) -> dict[str, Any]:
        """An image or a container."""
        (found,) = json.loads(self.run("inspect", what))
        assert isinstance(found, dict)
        return found

    def log(self, container: str) -> str:
        """What a container has written."""
        done = subprocess.run(
            ["docker", "logs", container], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=PATIENCE, check=True,
        )  # fmt: skip
        return done.stdout

    @contextmanager
    def container(self, image: str, *words: str | Path, command: tuple[str | Path, ...] = ()) -> Iterator[str]:
        """A running container; returns its id. It is removed at the end, with its volumes."""
        container = self.run("run", "--detach", *words, image, *command)
        try:
            yield container
        finally:
            self.run("rm", "--force", "--volumes", container)


@contextmanager
def _network_kept() -> Iterator[None]:
    """Put back afterwards what the daemon changes of this machine's network: a bridge, and rules of the packet filter."""
    if Path("/sys/class/net/docker0").exists():
        pytest.skip("missing right: another Docker daemon has the bridge docker0, and the rules for it")
    tables = [
        subprocess.run(["iptables-save", "-t", table], capture_output=True, text=True, check=True).stdout
        for table in ("filter", "nat")
    ]
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, check=False)
        for rules in tables:
            subprocess.run(["iptables-restore"], input=rules, text=True, check=True)


@contextmanager
def daemon(work: Path) -> Iterator[Docker]:
    """Start a daemon with its data in a folder; nothing of it is left afterwards."""
    with _network_kept():
        yield from _daemon(work)


def _daemon(work: Path) -> Iterator[Docker]:
    settings = work / "daemon.json"
    settings.write_text(json.dumps(_SETTINGS))
    docker = Docker(work / "docker.sock")
    command = ["dockerd", f"--config-file={settings}", f"--host=unix://{docker.sock}", f"--pidfile={work / 'pid'}"]
    command += [f"--data-root={work / 'data'}", f"--exec-root={work / 'exec'}"]
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until(lambda: docker.sock.is_socket() or process.poll() is not None, "dockerd", PATIENCE)
        if process.poll() is not None:
            why = (work / "log").read_text().strip().splitlines()[-1]
            pytest.skip(f"missing right: dockerd does not start: {why}")
        yield docker
    finally:
        process.terminate()
        process.wait(PATIENCE)
        subprocess.run(["umount", work / "exec/netns/default"], capture_output=True, check=False)


def build(docker: Docker, work: Path) -> None:
    """Build every target of the Containerfile, on a Debian folder in the place of the registry's image."""
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
            command = ["docker", "import", "-", "debian:12-slim"]
            subprocess.run(command, stdin=tar.stdout, env=docker.environment, capture_output=True, check=True)
    given = [name for name in ("PIP_CERT", "PIP_INDEX_URL", "http_proxy", "https_proxy") if name in os.environ]
    arguments = [f"--build-arg={name}={os.environ[name]}" for name in given]
    for target, image in IMAGES.items():
        docker.run(
            "build", "--quiet", "--network=host", *arguments, "--file", ROOT / "Containerfile", "--tag", image,
            "--target", target, ROOT, patience=BUILD_PATIENCE,
        )  # fmt: skip

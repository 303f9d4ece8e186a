"""The images in Docker: built from the Containerfile, and started as its first lines say."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.control.controlled import INFORMATION, answering
from tests.hosts.engines import IMAGES, Docker, build, daemon
from tests.hosts.folders import need_root
from tests.needs import need
from tests.serving import fake_guest, run_vhostcomm, until

GET_INFORMATION = 10
FOREIGN = "54321:54322"
"""A user and a group that are none of the image's."""

POWERLESS = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    need_root()
    need("dockerd", "docker")
    with daemon(tmp_path_factory.mktemp("docker")) as found:
        build(found, tmp_path_factory.mktemp("image"))
        yield found


def address(docker: Docker, container: str) -> str:
    """Of a container, in Docker's bridge."""
    return str(docker.inspect(container)["NetworkSettings"]["IPAddress"])


def serves(docker: Docker, container: str, times: int = 1) -> bool:
    """Whether its log says that it serves, so many times."""
    return docker.log(container).count('"serving"') == times


def ended(docker: Docker, container: str) -> tuple[int, str]:
    """Its exit status and its log, after a stop."""
    docker.run("stop", container)
    return int(docker.inspect(container)["State"]["ExitCode"]), docker.log(container)


def test_images_run_as_no_root_and_are_checked(docker: Docker) -> None:
    base = docker.inspect("debian:12-slim")["Size"]
    for image in IMAGES.values():
        found = docker.inspect(image)
        assert found["Config"]["User"] == "900:900"
        assert found["Config"]["Healthcheck"]["Test"][0] == "CMD"
        print(f"{image}: {found['Size'] / 1e6:.0f} MB, {(found['Size'] - base) / 1e6:.0f} MB of it above Debian's")  # noqa: T201
    for program in ("sfdisk", "qemu-img", "qemu-system-x86_64"):
        assert docker.run("run", "--rm", "--entrypoint", program, IMAGES["run"], "--version")


def test_guests_beside_a_read_only_container_of_another_user(docker: Docker, short_path: Path) -> None:
    """Stopped, killed and started again, it serves the guests of the same folder."""
    folder = short_path / "run"
    folder.mkdir(mode=0o710)
    subprocess.run(["chown", FOREIGN, folder], check=True)
    config = short_path / "vhostcomm.toml"
    config.write_text('[guests.nas]\nsock = "/run/vhostcomm/nas"\nserial = "1234ABC567890"\n')
    words = [f"--user={FOREIGN}", *POWERLESS, "--network=none", f"--volume={folder}:/run/vhostcomm"]
    words += [f"--volume={config}:/etc/vhostcomm/vhostcomm.toml:ro"]
    with docker.container(IMAGES["serve"], *words) as container:
        for number, (end, status) in enumerate({"kill": 137, "stop": 0}.items(), 1):
            until(partial(serves, docker, container, number))
            with fake_guest(folder / "nas") as guest:
                assert guest.serial() == "1234ABC567890"
                assert "ready" in docker.run("exec", container, "vhostcomm", "guests")
            docker.run(end, container)
            assert docker.inspect(container)["State"]["ExitCode"] == status
            docker.run("start", container)
        until(partial(serves, docker, container, 3))
        config.write_text(config.read_text() + '[guests.attic]\nsock = "/run/vhostcomm/attic"\n')
        docker.run("kill", "--signal=HUP", container)
        until((folder / "attic").is_socket)


def test_compose_file_that_is_printed(docker: Docker, tmp_path: Path) -> None:
    need("docker-compose")
    printed = run_vhostcomm("snippet", "compose", "--sock", "nas=/run/vhostcomm/nas", "--guest-serial", "1234ABC567890")
    # As long as Docker waits for the first check is no matter of this test.
    (tmp_path / "compose.yaml").write_text(printed.stdout.replace("interval: 30s", "interval: 2s"))
    command = ["docker-compose", "--project-name=tried", "--file", str(tmp_path / "compose.yaml")]
    subprocess.run([*command, "up", "--detach"], env=docker.environment, capture_output=True, check=True)
    try:
        container = docker.run("ps", "--quiet")
        sock = Path(
            next(
                each["Source"]
                for each in docker.inspect(container)["Mounts"]
                if each["Destination"] == "/run/vhostcomm"
            )
        )
        until((sock / "nas").is_socket)
        with answering(sock / "nas", {GET_INFORMATION: INFORMATION}):
            until(lambda: docker.inspect(container)["State"]["Health"]["Status"] == "healthy", "it", 90)
        assert ended(docker, container)[0] == 0
    finally:
        subprocess.run([*command, "down", "--volumes"], env=docker.environment, capture_output=True, check=True)


@pytest.fixture
def disks(tmp_path: Path) -> Path:
    """A machine that boots from an empty disk, and ignores everything."""
    for name in ("synoboot.img", "system.img"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(8 << 20)
    subprocess.run(["chown", "-R", "900:900", tmp_path], check=True)
    return tmp_path


MACHINE = ("run", "--boot", "/disks/synoboot.img", "--system", "/disks/system.img", "--serial-console", "none",
           "--accel", "tcg", "--memory", "64M")  # fmt: skip


def test_published_port_is_reached_from_outside(docker: Docker, disks: Path) -> None:
    """With the --forward of the documented command; without an address QEMU listens inside the container alone."""
    words = [*POWERLESS, f"--volume={disks}:/disks", "--publish=5000"]
    documented = next(line for line in Path("Containerfile").read_text().splitlines() if "--forward" in line)
    forward = documented.partition("--forward ")[2].split()[0]
    for forwarded, reached in ((forward, True), ("5000:5000", False)):
        command = (*MACHINE, "--grace", "2", "--forward", forwarded)
        with docker.container(IMAGES["run"], *words, command=command) as container:
            until(lambda: "QEMU runs" in docker.log(container), "QEMU", 60)
            with socket.socket() as client:
                assert (client.connect_ex((address(docker, container), 5000)) == 0) is reached
            assert "connected" in docker.run("exec", container, "vhostcomm", "guests")
            status, log = ended(docker, container)
            assert status == 0, log


def test_read_only_without_a_volume_says_what_to_mount(docker: Docker, tmp_path: Path) -> None:
    said = subprocess.run(
        ["docker", "run", "--rm", "--read-only", "--entrypoint", "vhostcomm", IMAGES["qemu-host"], "serve", "--sock",
         "nas=/run/vhostcomm/nas"],
        env=docker.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 78
    flag = said.stderr.partition("in a container, ")[2].partition(";")[0]
    assert flag.startswith("--tmpfs /run/vhostcomm:")
    words = ["--read-only", *flag.split(), "--entrypoint=vhostcomm"]
    with docker.container(
        IMAGES["qemu-host"], *words, command=("serve", "--sock", "nas=/run/vhostcomm/nas")
    ) as container:
        until(lambda: "serving" in docker.log(container))


def test_in_the_place_of_qemu_host(docker: Docker) -> None:
    with docker.container(IMAGES["qemu-host"], *POWERLESS, command=("-guestsn=1234abc567890",)) as container:
        where = address(docker, container)

        def serial() -> bool:
            try:
                with fake_guest((where, 12345)) as guest:
                    return guest.serial() == "1234ABC567890"
            except OSError:
                return False

        until(serial)
        assert "No command specified" in httpx.get(f"http://{where}:2210/read").text
        assert ended(docker, container)[0] == 0

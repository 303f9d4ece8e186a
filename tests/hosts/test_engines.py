"""The images in Docker and in Podman: built from the Containerfile, and started as its first lines say."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.control.controlled import INFORMATION, answering
from tests.e2e.launched import BOOT_TIMEOUT, Images
from tests.hosts.engines import ENGINES, IMAGES, TIMEOUT, Engine, build, engine
from tests.hosts.folders import need_root
from tests.serving import fake_guest, run_vhostcomm, until

GET_INFORMATION = 10
FOREIGN = "54321:54322"
"""A user and a group that the image doesn't have."""

POWERLESS = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]


@pytest.fixture(scope="module", params=ENGINES)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    need_root()
    with engine(request.param, tmp_path_factory.mktemp(request.param)) as found:
        build(found, tmp_path_factory.mktemp("image"))
        yield found


def address(client: Engine, container: str) -> str:
    """The address of a container in the engine's bridge."""
    return str(client.inspect(container)["NetworkSettings"]["IPAddress"])


def serves(client: Engine, container: str, times: int = 1) -> bool:
    """Whether a container's log says this many times that it serves."""
    return client.log(container).count('"serving"') == times


def ended(client: Engine, container: str, timeout: float = TIMEOUT) -> tuple[int, str]:
    """Stop a container; returns its exit status and its log."""
    client.run("stop", container, timeout=timeout)
    return int(client.inspect(container)["State"]["ExitCode"]), client.log(container)


def failure(client: Engine, image: str, *words: str | Path, command: tuple[str, ...] = ()) -> tuple[int, str]:
    """The exit status and the log of a container that ends by itself."""
    with client.container(image, *words, command=command) as container:
        return int(client.run("wait", container)), client.log(container)


def accepts(sock: Path) -> bool:
    """Whether a daemon listens at a socket, whose file a killed one leaves behind."""
    try:
        with fake_guest(sock):
            return True
    except OSError:
        return False


def healthy(client: Engine, container: str) -> bool:
    """Whether a container's check succeeds. Podman needs systemd's timers for it, so the test runs it by hand."""
    if client.program == "podman":
        return client.tried("healthcheck", "run", container).returncode == 0
    return str(client.inspect(container)["State"]["Health"]["Status"]) == "healthy"


def test_images_run_as_no_root_and_are_checked(client: Engine) -> None:
    base = client.inspect("debian:12-slim")["Size"]
    for image in IMAGES.values():
        found = client.inspect(image)
        assert found["Config"]["User"] == "900:900"
        check = found["Healthcheck"] if client.program == "podman" else found["Config"]["Healthcheck"]
        assert check["Test"][0] == "CMD"
        print(f"{image}: {found['Size'] / 1e6:.0f} MB, {(found['Size'] - base) / 1e6:.0f} MB of it above Debian's")  # noqa: T201
    for program in ("sfdisk", "qemu-img", "qemu-system-x86_64"):
        assert client.run("run", "--rm", "--entrypoint", program, IMAGES["run"], "--version")


def test_guests_beside_a_read_only_container_of_another_user(client: Engine, short_path: Path) -> None:
    """The container is killed, stopped and started again, and serves the folder each time. A second one there ends."""
    folder = short_path / "run"
    folder.mkdir(mode=0o710)
    subprocess.run(["chown", FOREIGN, folder], check=True)
    config = short_path / "vhostcomm.toml"
    config.write_text('[guests.nas]\nsock = "/run/vhostcomm/nas"\nserial = "1234ABC567890"\n')
    words = [f"--user={FOREIGN}", *POWERLESS, "--network=none", f"--volume={folder}:/run/vhostcomm"]
    words += [f"--volume={config}:/etc/vhostcomm/vhostcomm.toml:ro"]
    with client.container(IMAGES["serve"], *words) as container:
        for number, (end, status) in enumerate({"kill": 137, "stop": 0}.items(), 1):
            until(partial(serves, client, container, number))
            with fake_guest(folder / "nas") as guest:
                assert guest.serial() == "1234ABC567890"
                assert "ready" in client.run("exec", container, "vhostcomm", "guests")
                second, said = failure(client, IMAGES["serve"], *words)
                assert (second, said.count("another process already serves it")) == (1, 1), said
                assert guest.serial() == "1234ABC567890", "on the same connection"
            client.run(end, container)
            assert client.inspect(container)["State"]["ExitCode"] == status
            client.run("start", container)
        until(partial(serves, client, container, 3))
        config.write_text(config.read_text() + '[guests.attic]\nsock = "/run/vhostcomm/attic"\n')
        client.run("kill", "--signal=HUP", container)
        until((folder / "attic").is_socket)


def compose_file() -> str:
    words = ["--sock", "nas=/run/vhostcomm/nas", "--guest-serial", "1234ABC567890"]
    return run_vhostcomm("snippet", "compose", *words).stdout


def test_printed_compose_file_serves_a_guest(client: Engine, tmp_path: Path) -> None:
    # The real interval would only delay this test.
    (tmp_path / "compose.yaml").write_text(compose_file().replace("interval: 30s", "interval: 2s"))
    client.compose(tmp_path, "up", "--detach")
    try:
        container = client.run("ps", "--quiet")
        mounts = client.inspect(container)["Mounts"]
        sock = Path(next(each["Source"] for each in mounts if each["Destination"] == "/run/vhostcomm")) / "nas"
        until(partial(accepts, sock))
        with answering(sock, {GET_INFORMATION: INFORMATION}):
            until(partial(healthy, client, container), "its health", 90)
        for end, status in {"stop": 0, "kill": 137}.items():
            client.compose(tmp_path, end)
            assert client.inspect(container)["State"]["ExitCode"] == status
            client.compose(tmp_path, "up", "--detach")
            until(partial(accepts, sock))
            with fake_guest(sock) as guest:
                assert guest.serial() == "1234ABC567890"
    finally:
        client.compose(tmp_path, "down", "--volumes")


def test_compose_file_with_a_read_only_volume(client: Engine, tmp_path: Path) -> None:
    """The container's log names the remedy, which works."""
    file, printed, volume = tmp_path / "compose.yaml", compose_file(), "- vhostcomm:/run/vhostcomm"
    file.write_text(printed.replace(f"{volume}\n", f"{volume}:ro\n", 1))
    client.compose(tmp_path, "up", "--detach")
    try:
        refused = client.run("ps", "--all", "--quiet")
        until(lambda: "mount a volume without :ro at /run/vhostcomm" in client.log(refused), "the remedy", 60)
        file.write_text(printed)
        client.compose(tmp_path, "up", "--detach")
        serving = client.run("ps", "--quiet")
        assert serving != refused
        until(partial(serves, client, serving), "the service", 60)
    finally:
        client.compose(tmp_path, "down", "--volumes")


@pytest.fixture
def disks(tmp_path: Path) -> Path:
    """Empty disks, for a machine that ignores every command."""
    for name in ("synoboot.img", "system.img"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(8 << 20)
    subprocess.run(["chown", "-R", "900:900", tmp_path], check=True)
    return tmp_path


MACHINE = ("run", "--boot", "/disks/synoboot.img", "--system", "/disks/system.img", "--serial-console", "none",
           "--accel", "tcg", "--memory", "64M")  # fmt: skip


def test_published_port_is_reached_from_outside(client: Engine, disks: Path) -> None:
    """The documented command has an address in its --forward. Without it, QEMU listens only inside the container."""
    words = [*POWERLESS, f"--volume={disks}:/disks", "--publish=5000"]
    documented = next(line for line in Path("Containerfile").read_text().splitlines() if "--forward" in line)
    forward = documented.partition("--forward ")[2].split()[0]
    for forwarded, reached in ((forward, True), ("5000:5000", False)):
        command = (*MACHINE, "--grace", "2", "--forward", forwarded)
        with client.container(IMAGES["run"], *words, command=command) as container:
            until(lambda: "QEMU runs" in client.log(container), "QEMU", 60)
            with socket.socket() as outside:
                assert (outside.connect_ex((address(client, container), 5000)) == 0) is reached
            assert "connected" in client.run("exec", container, "vhostcomm", "guests")
            status, log = ended(client, container)
            assert status == 0, log


@pytest.mark.parametrize("when", ["QEMU runs", "guest ready"])
def test_stop_of_a_container_powers_its_guest_off(client: Engine, images: Images, tmp_path: Path, when: str) -> None:
    """The first stage is enough, even if the guest still boots, because --grace is longer than a boot."""
    command = ["run", "--serial-console", "none", "--accel", "tcg", "--memory", "384M", "--net", "none"]
    command += ["--grace", str(2 * BOOT_TIMEOUT)]
    for name in ("boot", "system", "data"):
        image = getattr(images, name)
        subprocess.run(["cp", "--sparse=always", image, tmp_path / name], check=True)
        command += [f"--{name}", f"/disks/{name}"]
    subprocess.run(["chown", "-R", "900:900", tmp_path], check=True)
    words = [*POWERLESS, f"--volume={tmp_path}:/disks", f"--stop-timeout={2 * BOOT_TIMEOUT + 20:.0f}"]
    with client.container(IMAGES["run"], *words, command=tuple(command)) as container:
        until(lambda: when in client.log(container), when, BOOT_TIMEOUT)
        status, log = ended(client, container, timeout=2 * BOOT_TIMEOUT)
    assert status == 0, log
    assert "the guest powers itself off" in log
    assert log.count('"stopping QEMU"') == 1, log


@pytest.mark.parametrize("mount", ["--read-only", "--volume=/srv:/run/vhostcomm:ro"])
def test_read_only_folder_of_sockets_names_the_remedy(client: Engine, mount: str) -> None:
    command = ("serve", "--sock", "nas=/run/vhostcomm/nas")
    podman = ["--read-only-tmpfs=false"] if client.program == "podman" else []  # it makes /run writable
    status, said = failure(client, IMAGES["qemu-host"], mount, *podman, "--entrypoint=vhostcomm", command=command)
    assert status == 78, said
    assert "mount a volume without :ro at /run/vhostcomm, or with Docker use --tmpfs /run/vhostcomm:" in said
    flag = "--volume=/run/vhostcomm" if podman else said.partition("with Docker use ")[2].partition(";")[0]
    words = ["--read-only", *podman, *flag.split(), "--entrypoint=vhostcomm"]
    with client.container(IMAGES["qemu-host"], *words, command=command) as container:
        until(lambda: "serving" in client.log(container))


def test_image_replaces_qemu_host(client: Engine) -> None:
    with client.container(IMAGES["qemu-host"], *POWERLESS, command=("-guestsn=1234abc567890",)) as container:
        where = address(client, container)

        def serial() -> bool:
            try:
                with fake_guest((where, 12345)) as guest:
                    return guest.serial() == "1234ABC567890"
            except OSError:
                return False

        until(serial)
        assert "No command specified" in httpx.get(f"http://{where}:2210/read").text
        assert ended(client, container)[0] == 0

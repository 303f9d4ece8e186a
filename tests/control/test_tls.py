"""The control surface with TLS: real certificates, daemons and command lines."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import httpx
import pytest

from tests.control.authority import Authority, TlsFiles, flags
from tests.control.controlled import INFORMATION, Answers, answering
from tests.serving import ENVIRONMENT, TIMEOUT, Serving, held_port, run_vhostcomm
from vchannel import GuestCommand
from vhostcomm.config.certificates import client_context
from vhostcomm.control.connection import BODY_LIMIT
from vhostcomm.control.tls import HANDSHAKE_LIMIT

HERE = "127.0.0.1"
ANSWERS: Answers = {
    GuestCommand.GET_INFORMATION: INFORMATION,
    GuestCommand.GET_UPTIME: b"4711\0",
    GuestCommand.POWEROFF: lambda: None,
}
REJECTED = "control connection without a valid certificate"


@attrs.frozen
class Host:
    """A daemon with TLS, and the files of a client that it accepts."""

    daemon: Serving
    port: int
    folder: Path
    admin: TlsFiles

    @property
    def where(self) -> str:
        return f"tls:{HERE}:{self.port}"

    def ask(self, *words: str, files: TlsFiles | None = None, where: str = "") -> subprocess.CompletedProcess[str]:
        return run_vhostcomm(*words, "--control", where or self.where, *flags(files or self.admin))

    def connect(self, context: ssl.SSLContext | None = None, name: str = HERE) -> ssl.SSLSocket:
        raw = socket.create_connection((HERE, self.port), TIMEOUT)
        return (context or client_context(*self.admin)).wrap_socket(raw, server_hostname=name)

    def log_of_rejected(self) -> str:
        return str(self.daemon.event(REJECTED)["why"])


@contextmanager
def hosted(folder: Path, files: TlsFiles, admin: TlsFiles, *words: str | Path) -> Iterator[Host]:
    folder.mkdir(exist_ok=True)
    with held_port() as port:
        where = "--control", f"tls:{HERE}:{port}"
        with Serving("--sock", f"nas={folder}/nas", *where, *flags(files), *words) as daemon:
            yield Host(daemon, port, folder, admin)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.new(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def admin(authority: Authority) -> TlsFiles:
    return authority.host("admin", "admin.example")


@pytest.fixture
def host(tmp_path: Path, authority: Authority, admin: TlsFiles) -> Iterator[Host]:
    with hosted(tmp_path / "one", authority.host("one", HERE), admin) as made:
        yield made


def test_guest_is_asked_and_stopped_from_another_machine(host: Host) -> None:
    with answering(host.folder / "nas", ANSWERS) as guest:
        assert "10.0.2.15" in host.ask("info", "nas").stdout
        listed = json.loads(host.ask("guests", "--json").stdout)
        assert [(each["name"], each["state"]) for each in listed] == [("nas", "ready")]
        gone = host.ask("shutdown", "nas", "--wait", "30")
        assert gone.stdout.startswith("nas: gone after "), gone
        assert GuestCommand.POWEROFF in guest.asked
    assert "certificate admin" in host.daemon.event("stop requested")["by"]


def test_several_hosts_are_asked_over_tls(tmp_path: Path, authority: Authority, admin: TlsFiles) -> None:
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(hosted(tmp_path / name, authority.host(name, HERE), admin)) for name in ("one", "two")
        )
        stack.enter_context(answering(two.folder / "nas", ANSWERS))
        variables = {
            "VHOSTCOMM_CONTROL": f"{one.where} {two.where}",
            "VHOSTCOMM_CONTROL_CA": str(admin.ca),
            "VHOSTCOMM_CONTROL_CERT": str(admin.cert),
            "VHOSTCOMM_CONTROL_KEY": str(admin.key),
        }
        listed = run_vhostcomm("guests", "--json", env=ENVIRONMENT | variables)
        assert [(each["name"], each["host"]) for each in json.loads(listed.stdout)] == [("nas", f"{HERE}:{two.port}")]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_without_a_certificate_is_rejected(host: Host, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(host.admin.ca))
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError, match="alert"), host.connect(context) as connection:
        assert connection.recv(1) != b"", "rejected without the reason"
    assert host.log_of_rejected() == "the client has none"


def test_client_of_another_ca_is_rejected(host: Host, tmp_path: Path) -> None:
    other = Authority.new(tmp_path / "other").host("stranger", "stranger.example")
    failed = host.ask("guests", files=other._replace(ca=host.admin.ca))
    assert failed.returncode == 1
    assert "--control-cert is not of the daemon's CA; use one of that CA\n" in failed.stderr
    assert host.log_of_rejected().startswith("the client's certificate: ")


def test_client_whose_certificate_has_expired_is_rejected(host: Host, authority: Authority) -> None:
    failed = host.ask("guests", files=authority.host("old", "old.example", expired=True))
    assert (failed.returncode, "--control-cert has expired; make a new one\n" in failed.stderr) == (1, True), failed
    assert host.log_of_rejected() == "the client's certificate: certificate has expired"


def test_daemon_of_another_ca_is_rejected(host: Host, tmp_path: Path) -> None:
    failed = host.ask("guests", files=Authority.new(tmp_path / "other").host("admin", "admin.example"))
    assert (failed.returncode, failed.stderr) == (
        1,
        f"vhostcomm: {host.where}: the daemon's certificate is not of the CA in --control-ca; use the CA that signed it\n",
    )
    assert host.log_of_rejected() == "the client rejects the daemon's certificate: unknown ca"


def test_host_name_that_is_not_in_the_certificate_is_rejected(host: Host) -> None:
    failed = host.ask("guests", where=f"tls:localhost:{host.port}")
    assert failed.returncode == 1
    assert "the daemon's certificate is not for 'localhost'; use a name that it contains, or make one" in failed.stderr
    assert host.ask("guests").returncode == 0


def test_daemon_whose_certificate_has_expired_is_rejected(
    tmp_path: Path, authority: Authority, admin: TlsFiles
) -> None:
    with hosted(tmp_path / "one", authority.host("worn", HERE, expired=True), admin) as host:
        failed = host.ask("guests")
        assert (failed.returncode, "the daemon's certificate has expired" in failed.stderr) == (1, True), failed
        assert host.log_of_rejected() == "the client rejects the daemon's certificate: certificate expired"


def test_request_without_tls_is_rejected(host: Host) -> None:
    failed = run_vhostcomm("guests", "--control", f"tcp:{HERE}:{host.port}")
    assert (failed.returncode, failed.stderr) == (
        2,
        "vhostcomm: bad request: this port speaks TLS, and only with a certificate; ask as tls:HOST:PORT, or https://HOST:PORT\n",
    )
    assert host.log_of_rejected() == "a request without TLS"


def test_tls_to_a_port_without_tls_has_a_remedy(tmp_path: Path, admin: TlsFiles) -> None:
    environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL_TOKEN": "a-long-random-secret"}
    with (
        held_port() as port,
        Serving("--sock", tmp_path / "nas", "--control", f"tcp:{HERE}:{port}", env=environment),
    ):
        where = f"tls:{HERE}:{port}"
        failed = run_vhostcomm("guests", "--control", where, *flags(admin))
    assert (failed.returncode, failed.stderr) == (
        1,
        f"vhostcomm: {where}: the daemon does not speak TLS there; give its address as tcp:HOST:PORT\n",
    )


def test_api_works_over_tls(host: Host) -> None:
    """The limits and checks are the same as without TLS."""
    with httpx.Client(
        base_url=f"https://{HERE}:{host.port}", verify=client_context(*host.admin), timeout=TIMEOUT
    ) as http:
        assert http.get("/guests", headers={"Host": "any.name.of.the.host"}).status_code == 200
        too_long = http.post("/guests/nas/call", content=b"x" * (BODY_LIMIT + 1))
        assert (too_long.status_code, too_long.headers["connection"]) == (413, "close")
        assert http.get("/guests", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        with http.stream("GET", "/events") as events:
            assert next(events.iter_lines()).startswith(":")


def test_clients_without_certificates_keep_nobody_out(host: Host) -> None:
    """Clients with a certificate are served, whether they connect now or were connected before."""
    with ExitStack() as stack:
        before = stack.enter_context(host.connect())
        strangers = [
            stack.enter_context(socket.create_connection((HERE, host.port), TIMEOUT))
            for _ in range(HANDSHAKE_LIMIT + 128)
        ]
        assert host.ask("guests").returncode == 0
        assert strangers[0].recv(1) == b"", "the oldest makes room"
        before.sendall(b"GET /guests HTTP/1.1\r\nHost: x\r\n\r\n")
        assert before.recv(12) == b"HTTP/1.1 200"


def test_reload_reads_the_certificates_again(tmp_path: Path, authority: Authority, admin: TlsFiles) -> None:
    """This works without a configuration file. Unusable files change nothing."""
    used = Authority.new(tmp_path / "used")
    files = used.host("one", HERE)
    with hosted(tmp_path / "one", files, used.host("admin", "admin.example")) as host:
        assert host.ask("guests").returncode == 0
        key = files.key.read_bytes()
        files.key.write_text("no key\n")
        host.daemon.send_signal(signal.SIGHUP)
        why = host.daemon.event("reload rejected, the old configuration stays")["why"]
        assert why == f"the control surface: {files.key}: the file has no key in PEM format"
        assert host.ask("guests").returncode == 0
        files.key.write_bytes(key)
        new = authority.host("one", HERE)
        for before, after in zip(files, new, strict=True):
            shutil.copy(after, before)
        host.daemon.send_signal(signal.SIGHUP)
        host.daemon.event("reloaded")
        assert host.ask("guests", files=admin).returncode == 0
        assert "--control-cert is not of the daemon's CA" in host.ask("guests").stderr


@pytest.mark.needs("openssl")
def test_withdrawn_certificates_are_rejected(tmp_path: Path) -> None:
    """The daemon rejects a client's certificate, then clients reject the daemon's. Others stay valid."""
    made = Authority.new(tmp_path / "ca")
    files, lost, admin = made.host("one", HERE), made.host("lost", "lost.example"), made.host("admin", "admin.example")
    with hosted(tmp_path / "one", files, admin) as host:
        assert host.ask("guests", files=lost).returncode == 0
        made.withdraw(lost)
        host.daemon.send_signal(signal.SIGHUP)
        host.daemon.event("reloaded")
        rejected = host.ask("guests", files=lost)
        assert (rejected.returncode, "the certificate in --control-cert: certificate revoked" in rejected.stderr) == (
            1,
            True,
        )
        assert host.log_of_rejected() == "the client's certificate: certificate revoked"
        assert host.ask("guests").returncode == 0
        made.withdraw(files)
        rejected = host.ask("guests")
        assert rejected.stderr.endswith(
            "the daemon's certificate is not valid: certificate revoked; make a new one on its host\n"
        )


@pytest.mark.needs("openssl")
def test_outdated_list_of_withdrawn_certificates_has_a_remedy(tmp_path: Path) -> None:
    made = Authority.new(tmp_path / "ca")
    files = made.host("one", HERE)
    with hosted(tmp_path / "one", files, made.host("admin", "admin.example")) as host:
        made.withdraw(period=("200101000000Z", "200201000000Z"))
        assert (
            "CRL has expired, in --control-ca; make a new list with openssl ca -gencrl\n" in host.ask("guests").stderr
        )


def test_daemon_rejects_unusable_files(tmp_path: Path, authority: Authority) -> None:
    files = authority.host("one", HERE)
    refused = run_vhostcomm(
        "serve",
        "--sock",
        tmp_path / "nas",
        "--control",
        f"tls:{HERE}:1",
        *flags(files._replace(key=tmp_path / "no")),
    )
    assert (refused.returncode, refused.stdout) == (78, "")
    assert (
        refused.stderr
        == f"vhostcomm: the control surface: {tmp_path}/no: the key can't be read: No such file or directory\n"
    )
    refused = run_vhostcomm("serve", "--sock", tmp_path / "nas", "--control", "tls:0.0.0.0:1", "--control-ca", files.ca)
    assert (refused.returncode, "--control is tls:0.0.0.0:1: TLS needs three files: " in refused.stderr) == (2, True)


def test_verb_rejects_unusable_files(tmp_path: Path, authority: Authority, admin: TlsFiles) -> None:
    missing = run_vhostcomm("guests", "--control", "tls:host:1", "--control-ca", admin.ca)
    assert (missing.returncode, "--control tls:host:1: TLS needs three files: --control-ca" in missing.stderr) == (
        2,
        True,
    )
    unreadable = run_vhostcomm("guests", "--control", "tls:host:1", *flags(admin._replace(cert=tmp_path)))
    assert (unreadable.returncode, f"{tmp_path}: not a file, but" in unreadable.stderr) == (2, True)

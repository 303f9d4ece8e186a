"""An etcd with TLS, client certificates and authentication: access, and the errors of clients without it."""

from __future__ import annotations

import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme
from attrs import define, evolve

from tests.cluster.etcd import PREFIX, Etcd, running
from tests.cluster.hosts import NAS, Host, asking
from tests.control.authority import PAST
from tests.control.controlled import client
from tests.serving import TIMEOUT
from vhostcomm.cluster.address import Access
from vhostcomm.cluster.gateway import Change, Entry, Gateway
from vhostcomm.cluster.records import Trouble
from vhostcomm.cluster.wire import CompactedError, EtcdError, UnreachableError

pytestmark = [pytest.mark.slow, pytest.mark.needs("etcd")]


@define
class Locked:
    """The etcd, its authority, and the access of a user that may do everything below the prefix."""

    etcd: Etcd
    authority: trustme.CA
    access: Access


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    folder = tmp_path_factory.mktemp("locked")
    authority, ca = trustme.CA(), folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    server, client = signed(authority, folder / "server.pem", "etcd"), signed(authority, folder / "client.pem")
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(client)
    flags = ("--client-cert-auth", f"--trusted-ca-file={ca}", f"--cert-file={server}", f"--key-file={server}")
    http = httpx.Client(verify=context, trust_env=False, timeout=TIMEOUT)
    with running(folder, 1, *flags, scheme="https", client=http) as etcd:
        etcd.call("auth/user/add", name="root", password="r")
        etcd.call("auth/role/add", name="root")
        etcd.call("auth/user/grant", user="root", role="root")
        etcd.call("auth/role/add", name="hosts")
        rights = {"permType": "READWRITE", "key": _base64(PREFIX), "range_end": _base64(PREFIX[:-1] + "0")}
        etcd.call("auth/role/grant", name="hosts", perm=rights)
        etcd.call("auth/user/add", name="host", password="h")
        etcd.call("auth/user/grant", user="host", role="hosts")
        etcd.call("auth/user/add", name="other", password="o")
        etcd.call("auth/enable")
        etcd.headers["Authorization"] = etcd.call("auth/authenticate", name="root", password="r")["token"]
        member = f"127.0.0.1:{etcd.members[0].port}"
        yield Locked(etcd, authority, Access((member,), PREFIX, str(ca), str(client), "", "host", "h"))


def signed(authority: trustme.CA, path: Path, common_name: str | None = None, *, expired: bool = False) -> Path:
    """Write a certificate for 127.0.0.1 and its key into one file."""
    made = authority.issue_cert("127.0.0.1", common_name=common_name, not_after=PAST if expired else None)
    path.touch(mode=0o600)
    made.private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()


def asked(access: Access, ask: Callable[[Gateway], Any]) -> Any:
    async def run() -> Any:
        async with Gateway(access) as gateway:
            with trio.fail_after(TIMEOUT):
                return await ask(gateway)

    return trio.run(run)


def failure(access: Access, ask: Callable[[Gateway], Any] = Gateway.range) -> str:
    """The error of an access, without the member's URL."""
    with pytest.raises(EtcdError) as error:
        asked(access, ask)
    return str(error.value).removeprefix(f"https://{access.endpoints[0]}: ")


def test_a_user_with_a_certificate_has_access(locked: Locked) -> None:
    async def ask(gateway: Gateway) -> None:
        lease = await gateway.grant(10)
        assert await gateway.transact({"hosts/a": b"1", "hosts/b": b""}, lease=lease, only_mine="hosts/a")
        assert await gateway.transact({"hosts/a": b"2"}, lease=lease, only_mine="hosts/a")
        # Without that lease, the key can't be changed.
        assert not await gateway.transact({"hosts/a": b"3"}, only_mine="hosts/a")
        found, revision = await gateway.range()
        assert [(each.key, each.value) for each in found] == [("hosts/a", b"2"), ("hosts/b", b"")]
        assert revision == max(each.revision for each in found)
        assert await gateway.keep_alive(lease) == 10
        # A token that is no longer valid is replaced.
        locked.etcd.call("auth/user/changepw", name="host", password="h")
        await gateway.revoke(lease)
        assert (await gateway.range())[0] == []
        assert await gateway.keep_alive(lease) == 0

    asked(locked.access, ask)


def test_a_watch_reports_what_changes_and_what_was_compacted(locked: Locked) -> None:
    async def ask(gateway: Gateway) -> None:
        await gateway.transact({"guests/a": b"1"})
        _, revision = await gateway.range()
        await gateway.transact({"guests/a": b"", "guests/b": b"2"})
        await gateway.transact({}, ["guests/a"])
        seen: list[Change] = []

        def changed(changes: list[Change]) -> None:
            seen.extend(changes)
            if len(seen) == 3:
                scope.cancel()

        with trio.CancelScope() as scope:
            await gateway.watch(revision + 1, changed)
        assert seen == [
            Change("guests/a", revision + 1, Entry("guests/a", b"", revision + 1)),
            Change("guests/b", revision + 1, Entry("guests/b", b"2", revision + 1)),
            Change("guests/a", revision + 2, None),
        ]
        locked.etcd.call("kv/compaction", revision=str(revision + 2), physical=True)
        with pytest.raises(CompactedError):
            await gateway.watch(revision, changed)
        await gateway.transact({}, ["guests/b"])

    asked(locked.access, ask)


def test_a_tree_of_many_pages_is_read_completely(locked: Locked) -> None:
    async def ask(gateway: Gateway) -> None:
        keys = [f"guests/g{number:03}" for number in range(450)]
        for start in range(0, len(keys), 100):
            await gateway.transact(dict.fromkeys(keys[start : start + 100], b"{}"))
        assert [each.key for each in (await gateway.range())[0]] == keys

    asked(locked.access, ask)
    locked.etcd.clear()


def test_errors_name_the_reason_of_a_denied_access(locked: Locked, tmp_path: Path) -> None:
    access = locked.access
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "stranger.pem"))
    named = evolve(access, certificate=str(signed(locked.authority, tmp_path / "named.pem", "root")))
    assert failure(evolve(access, ca=str(tmp_path / "stranger.pem"))) == (
        "etcd's certificate is not of the CA in --cluster-ca; use the CA that signed it"
    )
    # etcd closes the connection with its alert, which may be lost. Alerts depend on its version, too.
    assert " demands a certificate" in failure(evolve(access, certificate=""))
    unknown = signed(trustme.CA(), tmp_path / "unknown.pem")
    old = signed(locked.authority, tmp_path / "old.pem", expired=True)
    for file in unknown, old:
        assert "the certificate in --cluster-cert" in failure(evolve(access, certificate=str(file)))
    assert failure(evolve(access, ca="", certificate="")).startswith(f"http://{access.endpoints[0]}: ")
    elsewhere = evolve(access, endpoints=(access.endpoints[0].replace("127.0.0.1", "localhost"),))
    assert failure(elsewhere).startswith(
        "etcd's certificate is not for 'localhost'; use a name that it contains, or make one"
    )
    assert failure(named).startswith("etcd's gateway rejects client certificates with a CN (common name)")
    nobody = evolve(access, user="", password="")
    assert failure(nobody).startswith("etcd's authentication is on: give --cluster-user")
    assert failure(evolve(access, password="wrong")) == (
        "etcdserver: authentication failed, invalid user ID or password"
    )
    other = evolve(access, user="other", password="o")
    assert failure(other) == "etcdserver: permission denied"

    def nothing(_: list[Change]) -> None: ...

    for each, why in (other, "PermissionDenied"), (nobody, "authentication is on"):
        assert why in failure(each, lambda gateway: gateway.watch(1, nothing))


def test_a_host_without_a_right_to_the_prefix_serves_its_guests(locked: Locked, tmp_path: Path) -> None:
    access = locked.access
    words = ("--cluster-ca", access.ca, "--cluster-cert", access.certificate, "--cluster-user", "other")
    file = NAS + 'serial = "AAAAAAAAAAAAA"\n'
    with (
        Host(tmp_path, "host1", locked.etcd.address, *words, file=file, VHOSTCOMM_CLUSTER_PASSWORD="o") as host,
        asking(host.sock) as guest,
    ):
        denied = f"https://{access.endpoints[0]}: etcdserver: permission denied"
        for what in "cluster not reached", "this host's records not published":  # in any order
            if not any((each["event"], each.get("why")) == (what, denied) for each in host.log):
                host.event(what, why=denied)
        guest.assert_hears("AAAAAAAAAAAAA")
        with client(host.control) as http:
            reasons = {each.partition(" since ")[0]: each for each in http.get("/healthz").json()["warnings"]}
        assert all(each.endswith(denied) for each in reasons.values())
        assert set(reasons) == {Trouble.UNREACHED.value, Trouble.UNPUBLISHED.value}
        locked.etcd.call("auth/user/grant", user="other", role="hosts")
        host.event("published again")
    locked.etcd.call("auth/user/revoke", name="other", role="hosts")


@contextmanager
def tls_server(certificate: Path) -> Iterator[int]:
    """A server with a certificate that no client accepts; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(TIMEOUT)


def test_an_expired_certificate_is_rejected(tmp_path: Path) -> None:
    authority, ca = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    with tls_server(signed(authority, tmp_path / "old.pem", expired=True)) as port:
        access = Access((f"127.0.0.1:{port}",), ca=str(ca))
        assert failure(access) == ("etcd's certificate has expired; make a new one on its host, then: restart etcd")


def test_a_server_that_is_not_etcd_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answers = iter(
            [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"]
        )

        def serve() -> None:
            with suppress(OSError):
                for answer in answers:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        access = Access((f"127.0.0.1:{listener.getsockname()[1]}",))
        with pytest.raises(UnreachableError, match="it answers without JSON; check that etcd listens there"):
            asked(access, Gateway.range)
        with pytest.raises(EtcdError, match="it has no /v3/"):
            asked(access, Gateway.range)
        thread.join(TIMEOUT)

"""Real members of Debian's etcd on the loopback, and a client that writes like an operator."""

from __future__ import annotations

import json
import signal
import socket
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from attrs import define, field

from tests.needs import need
from tests.serving import ENVIRONMENT, TIMEOUT, end, held_port, started, until

PREFIX: Final = "/vhostcomm/v1/"


@define(eq=False)
class Member:
    """One member: its process, while it runs, and how to start it."""

    command: list[str]
    port: int
    folder: Path
    process: Any = None
    ready: Any = None
    stack: ExitStack = field(factory=ExitStack)

    def start(self) -> None:
        """Start it; it may wait for the others. `wait` waits until it serves."""
        notify = self.folder / "ready.sock"
        notify.unlink(missing_ok=True)
        self.ready = self.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.ready.bind(str(notify))
        self.ready.settimeout(60)
        log = self.stack.enter_context((self.folder / "log").open("ab"))
        environment = ENVIRONMENT | {"NOTIFY_SOCKET": str(notify), "GOMAXPROCS": "1"}
        self.process = self.stack.enter_context(started(self.command, env=environment, stdout=log, stderr=log))

    def wait(self) -> None:
        assert b"READY=1" in self.ready.recv(4096)

    def kill(self) -> None:
        end(self.process)
        self.stack.close()

    def stop(self) -> None:
        """Suspend it: its connections stay open, and it answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@define(eq=False)
class Etcd:
    """The members, and a client of one of them: the first that runs, unless another is named."""

    members: list[Member]
    client: httpx.Client
    scheme: str = "http"
    headers: dict[str, str] = field(factory=dict)

    @property
    def address(self) -> str:
        """The value of --cluster."""
        return self.address_of(self.members)

    def address_of(self, members: Sequence[Member]) -> str:
        return "etcd://" + ",".join(f"127.0.0.1:{each.port}" for each in members)

    def leader_first(self) -> list[Member]:
        """The members, the leader first, because a daemon asks the first."""
        leader = self.leader()
        return [leader, *(each for each in self.members if each is not leader)]

    def heal(self) -> None:
        """Make all members run again."""
        killed = [each for each in self.members if each.process.poll() is not None]
        for each in self.members:
            if each in killed:
                each.start()
            else:
                each.resume()
        for each in killed:
            each.wait()

    def call(self, path: str, at: Member | None = None, **body: Any) -> dict[str, Any]:
        member = at or next(each for each in self.members if each.process.poll() is None)
        url = f"{self.scheme}://127.0.0.1:{member.port}/v3/{path}"
        response = self.client.post(url, json=body, headers=self.headers)
        assert response.status_code == httpx.codes.OK, response.text
        return dict(response.json())

    def put(self, key: str, value: Any, at: Member | None = None) -> int:
        """Write a key as JSON, or bytes as they are. Return the revision."""
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        answer = self.call("kv/put", at, key=_text(PREFIX + key), value=b64encode(raw).decode())
        return int(answer["header"]["revision"])

    def delete(self, key: str, at: Member | None = None) -> None:
        self.call("kv/deleterange", at, key=_text(PREFIX + key))

    def clear(self) -> None:
        """Delete everything."""
        self.call("kv/deleterange", key=_text("\0"), range_end=_text("\0"))

    def records(self, prefix: str, at: Member | None = None) -> dict[str, Any]:
        """The values below a prefix of the tree, by their keys."""
        last = PREFIX + prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self.call("kv/range", at, key=_text(PREFIX + prefix), range_end=_text(last))
        return {
            b64decode(each["key"]).decode().removeprefix(PREFIX): json.loads(b64decode(each["value"]))
            for each in found.get("kvs", [])
        }

    def leader(self) -> Member:
        """Wait until all running members agree on a leader, and return it."""
        running = [each for each in self.members if each.process.poll() is None]
        status: list[dict[str, Any]] = []

        def agree() -> bool:
            status[:] = [self.call("maintenance/status", each) for each in running]
            leaders = {each.get("leader") for each in status}  # without one, it is left out
            return len(leaders) == 1 and None not in leaders

        until(agree, "one leader", 60)
        by_id = {each["header"]["member_id"]: member for each, member in zip(status, running, strict=True)}
        return by_id[status[0]["leader"]]


@contextmanager
def running(
    folder: Path, count: int, *flags: str, scheme: str = "http", client: httpx.Client | None = None
) -> Iterator[Etcd]:
    """Start this many members. Those that still run end with the block."""
    need("etcd")
    with ExitStack() as stack:
        ports = [(stack.enter_context(held_port()), stack.enter_context(held_port())) for _ in range(count)]
        peers = ",".join(f"m{place}=http://127.0.0.1:{peer}" for place, (_, peer) in enumerate(ports))
        members = []
        for place, (port, peer) in enumerate(ports):
            own = folder / f"m{place}"
            own.mkdir()
            command = [
                "etcd", f"--name=m{place}", f"--data-dir={own}/data", "--heartbeat-interval=100", "--election-timeout=2000",
                f"--listen-client-urls={scheme}://127.0.0.1:{port}", f"--advertise-client-urls={scheme}://127.0.0.1:{port}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster={peers}", "--unsafe-no-fsync", *flags,
            ]  # fmt: skip
            members.append(Member(command, port, own))
        made = Etcd(members, stack.enter_context(client or httpx.Client(trust_env=False, timeout=TIMEOUT)), scheme)
        for each in members:
            stack.callback(each.stack.close)
            each.start()
        for each in members:
            each.wait()
        yield made


def _text(key: str) -> str:
    return b64encode(key.encode()).decode()

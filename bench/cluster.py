"""The effect of a host's cluster on one guest: its round trips, compared with undisturbed ones of the same run. No number is asserted.

The members of a real etcd run on the loopback, with a heartbeat of 20 ms and elections after 200 ms. Arguments
choose the parts to measure: tree, failures, handshakes. Without an argument, all are measured.
"""

from __future__ import annotations

import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.cluster.etcd import PREFIX, Etcd, running
from tests.cluster.hosts import NAS, Host
from tests.control.authority import Authority, flags
from tests.serving import Serving, held_port
from vchannel import FRAME_SIZE, HostCommand, Request

DESCRIPTORS: Final = 20_000
GUESTS: Final = 9_000
BATCH: Final = 100
"""Guests in one write to etcd."""
SECONDS: Final = 4.0
"""The duration of a measurement without an end of its own."""
PAUSE: Final = 0.002
"""Seconds between two questions."""
FLOODERS: Final = 4
ETCD: Final = ("--heartbeat-interval=20", "--election-timeout=200")


class Asking:
    """A thread with a guest that asks at intervals."""

    def __init__(self, sock: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(str(sock))
        self._end = threading.Event()
        self._times: list[float] = []
        self._quiet: list[float] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        question = Request.of(HostCommand.GUEST_SERIAL).raw
        while not self._end.wait(PAUSE):
            begin = time.perf_counter()
            self._sock.sendall(question)
            left = FRAME_SIZE
            while left:
                left -= len(self._sock.recv(left))
            self._times.append(time.perf_counter() - begin)

    @contextmanager
    def during(self, what: str, seconds: float = 0.0) -> Iterator[None]:
        """Print the round trips of the block and the seconds after it, compared with those of the first block."""
        times = self._times = []
        began = time.perf_counter()
        yield
        time.sleep(seconds)
        took = time.perf_counter() - began
        times = times[:]
        self._quiet = self._quiet or times
        cuts, floor = (statistics.quantiles(each, n=100) for each in (times, self._quiet))
        print(
            f"  {what:36}{cuts[49] * 1e3:8.2f} ms p50 {cuts[98] * 1e3:8.2f} ms p99 {max(times) * 1e3:8.2f} ms most"
            f" {cuts[98] / floor[98]:7.2f} times undisturbed ({len(times):,} answers, {took:.1f} s)",
            flush=True,
        )

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._sock.close()


@contextmanager
def asking(sock: Path) -> Iterator[Asking]:
    """A guest, whose undisturbed round trips are measured first."""
    made = Asking(sock)
    try:
        with made.during("undisturbed", SECONDS):
            pass
        yield made
    finally:
        made.close()


def a_host(work: Path, name: str, cluster: str, *words: str | Path) -> Host:
    made = Host(
        work, name, cluster, "--frame-rate", "0", *map(str, words), file=NAS, RUNTIME_DIRECTORY=str(work / "run")
    )
    made.timeout = 300
    return made


def tree(work: Path) -> None:
    """Load many guests, change one of them, and remove one."""
    print(f"cluster: one guest while {GUESTS:,} others come from the tree")
    (work / "run").mkdir(mode=0o700)
    with running(work, 1, *ETCD) as etcd, a_host(work, "host1", etcd.address) as host, asking(host.sock) as guest:
        host.event("cluster reached")
        with guest.during("all are put, and loaded"):
            for first in range(0, GUESTS, BATCH):
                put_guests(etcd, range(first, first + BATCH))
            while host.event("reloaded")["guests"] <= GUESTS:
                pass
        with guest.during("undisturbed again", SECONDS):
            pass
        for what, change in (
            ("one of them is changed", lambda: etcd.put("guests/g7", {"serial": "CCCCCCCCCCCCC"})),
            ("one of them is removed", lambda: etcd.delete("guests/g7")),
        ):
            change()
            host.event("reloading")  # may be delayed: reloads use a twentieth of the time
            with guest.during(what, SECONDS):
                host.event("reloaded")


def put_guests(etcd: Etcd, numbers: range) -> None:
    puts = [
        {
            "request_put": {
                "key": b64encode(f"{PREFIX}guests/g{number}".encode()).decode(),
                "value": b64encode(b'{"serial": "B%012d", "vcpus": 2}' % number).decode(),
            }
        }
        for number in numbers
    ]
    etcd.call("kv/txn", success=puts)


def failures(work: Path) -> None:
    """Kill, stop and compact members under a watch."""
    print("cluster: one guest while etcd fails")
    (work / "run").mkdir(mode=0o700)
    with running(work, 3, *ETCD) as etcd:
        members = etcd.leader_first()
        with a_host(work, "host1", etcd.address_of(members)) as host, asking(host.sock) as guest:
            host.event("cluster reached")
            with guest.during("the leader is killed", 2 * SECONDS):
                members[0].kill()
            etcd.heal()
            leader = etcd.leader()
            with guest.during("the leader is stopped (SIGSTOP)", 3 * SECONDS):
                leader.stop()
            with guest.during("it is resumed (SIGCONT)", SECONDS):
                leader.resume()
            with guest.during("the quorum is lost", 2 * SECONDS):
                for each in etcd.members[1:]:
                    each.kill()
            with guest.during("the quorum is regained", SECONDS):
                etcd.heal()
                etcd.leader()
            with guest.during("compaction", SECONDS):
                for number in range(20):
                    revision = etcd.put("guests/nas", {"serial": f"{number:013d}"})
                    etcd.call("kv/compaction", revision=str(revision), physical=True)
    with ExitStack() as stack:
        hole = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # then the kernel accepts no further connection
            waits = stack.enter_context(socket.socket())
            waits.setblocking(False)
            waits.connect_ex(hole.getsockname())
        host = stack.enter_context(a_host(work, "host2", f"etcd://127.0.0.1:{hole.getsockname()[1]}"))
        with asking(host.sock) as guest, guest.during("an etcd that never answers", 2 * SECONDS):
            pass


def handshakes(work: Path) -> None:
    """Flood a control surface with TLS. The programs have the lowest priority, because they would run on another machine."""
    print(f"control surface: one guest while {FLOODERS} programs make handshakes")
    authority = Authority.new(work / "ca")
    files, admin = authority.host("one", "127.0.0.1"), authority.host("admin", "admin.example")
    flood = ["-cert", str(admin.cert), "-key", str(admin.key)]
    with held_port() as port:
        where = "--control", f"tls:127.0.0.1:{port}"
        program = [
            "nice",
            "-n19",
            "openssl",
            "s_time",
            "-connect",
            f"127.0.0.1:{port}",
            "-new",
            "-time",
            f"{SECONDS + 2:.0f}",
        ]
        words = "--sock", f"nas={work}/nas", "--frame-rate", "0"
        with Serving(*words, *where, *flags(files)), asking(work / "nas") as guest:
            for what, more in ("with a certificate", flood), ("without one", []):
                with ExitStack() as stack:
                    for _ in range(FLOODERS):
                        stack.enter_context(
                            subprocess.Popen([*program, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                        )
                    with guest.during(f"clients {what}", SECONDS):
                        pass
            held: list[socket.socket] = []
            with guest.during("clients that never finish"):
                end = time.monotonic() + SECONDS
                while time.monotonic() < end:
                    held.append(socket.create_connection(("127.0.0.1", port)))
                    while len(held) > BATCH:
                        held.pop(0).close()
            for each in held:
                each.close()


PARTS: Final[dict[str, Callable[[Path], None]]] = {"tree": tree, "failures": failures, "handshakes": handshakes}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for name in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory(prefix="vhostcomm-bench-") as folder:
            PARTS[name](Path(folder))


if __name__ == "__main__":
    main()

"""Calls through the control surface of a running daemon with a hundred guests that answer. No number is asserted."""

from __future__ import annotations

import multiprocessing
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from vchannel import NEED_DATA, Connection, HostCommand, Request, Role
from vhostcomm.config.address import Listen
from vhostcomm.control.client import Client

GUESTS: Final = 100
CLIENTS: Final = 4
CALLS: Final = 250
"""The number of calls of each client."""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vhostcomm-bench-") as folder:
        work = Path(folder)
        config = work / "guests.toml"
        config.write_text("".join(f'[guests.g{place}]\nsock = "{work}/g{place}"\n' for place in range(GUESTS)))
        command = [
            sys.executable,
            "-m",
            "vhostcomm",
            "serve",
            "--config",
            str(config),
            "--control",
            str(work / "control"),
        ]
        with subprocess.Popen([*command, "--frame-rate", "0"], stdout=subprocess.DEVNULL) as daemon:
            try:
                threading.Thread(target=answer, args=(work,), daemon=True).start()
                report(work / "control")
            finally:
                daemon.send_signal(signal.SIGTERM)


def answer(work: Path) -> None:
    """Run a hundred ready guests that answer every request."""
    ready = selectors.DefaultSelector()
    for place in range(GUESTS):
        sock = connected(work / f"g{place}")
        guest = Connection(Role.GUEST)
        sock.sendall(guest.send(Request.of(HostCommand.GUEST_POWER, needs_response=False)))
        ready.register(sock, selectors.EVENT_READ, guest)
    while True:
        for key, _ in ready.select():
            end, guest = key.fileobj, key.data
            assert isinstance(end, socket.socket)
            data = end.recv(65536)
            if not data:
                return
            guest.receive_data(data)
            while (event := guest.next_event()) is not NEED_DATA:
                if isinstance(event, Request):
                    end.sendall(guest.send(event.reply(b"12345\0")))


def connected(path: Path) -> socket.socket:
    while True:
        sock = socket.socket(socket.AF_UNIX)
        if sock.connect_ex(str(path)) == 0:
            return sock
        sock.close()
        time.sleep(0.01)


def report(control: Path) -> None:
    while not control.exists():
        time.sleep(0.01)
    client = Client(Listen(control), verb="bench")
    while not all(guest["state"] == "ready" for guest in client.get("/guests")["guests"]):
        time.sleep(0.05)
    with ProcessPoolExecutor(CLIENTS, multiprocessing.get_context("spawn")) as clients:
        list(clients.map(call, [control] * CLIENTS, range(CLIENTS), [1] * CLIENTS))  # start all clients
        begin = time.perf_counter()
        found = clients.map(call, [control] * CLIENTS, range(CLIENTS), [CALLS] * CLIENTS)
        times = sorted(each for some in found for each in some)
        seconds = time.perf_counter() - begin
    print(f"calls: {GUESTS} guests that answer, {CLIENTS} clients over the control surface")
    print(f"  calls                           {len(times) / seconds:13,.0f} /s")
    for name, share in ("p50", 0.5), ("p99", 0.99):
        print(f"  call to answer {name:21}{times[int(len(times) * share)] * 1000:9.1f} ms")


def call(control: Path, number: int, calls: int) -> list[float]:
    """Return the seconds of each call."""
    client, times = Client(Listen(control), verb="bench"), []
    for place in range(calls):
        begin = time.perf_counter()
        client.post(f"/guests/g{(number * CALLS + place) % GUESTS}/call", {"command": "GET_UPTIME", "timeout": 10})
        times.append(time.perf_counter() - begin)
    return times


if __name__ == "__main__":
    main()

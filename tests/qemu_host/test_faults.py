"""Faults that other tools don't survive, with a real `qemu-host`."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.qemu_host.running import SERIAL, ZERO, QemuHost, answering, asking, error, listens, ok
from tests.serving import fake_guest, until
from vchannel import FRAME_SIZE, GuestCommand, Request


@pytest.mark.parametrize("sizes", [[1], [2048, 2048], [4095, 1]], ids=str)
def test_a_frame_in_pieces(tmp_path: Path, sizes: list[int]) -> None:
    with QemuHost(tmp_path) as host, fake_guest(host.sock) as guest:
        request = Request.of(SERIAL)
        frame = guest.connection.send(request)
        sizes = sizes if sum(sizes) == FRAME_SIZE else sizes * FRAME_SIZE
        place = 0
        for size in sizes:
            guest.sock.sendall(frame[place : place + size])
            place += size
            if size > 1:
                until(lambda: not guest.unread(), "the daemon reads the piece")
        assert guest.answer(request) == ZERO.encode() + b"\0"


def test_half_a_frame_then_whole_ones(tmp_path: Path) -> None:
    """A guest was reset during a write: its next question may be lost with the half, but not the one after it."""
    with QemuHost(tmp_path) as host, fake_guest(host.sock) as guest:
        guest.sock.sendall(guest.connection.send(Request.of(SERIAL))[: FRAME_SIZE // 2])
        lost, second = Request.of(SERIAL), Request.of(SERIAL)
        guest.sock.sendall(guest.connection.send(lost) + guest.connection.send(second))
        assert guest.answer(second) == ZERO.encode() + b"\0"


def test_pipelined_frames_are_answered(tmp_path: Path) -> None:
    with QemuHost(tmp_path) as host, fake_guest(host.sock) as guest:
        asked = [Request.of(SERIAL) for _ in range(16)]
        guest.sock.sendall(b"".join(map(guest.connection.send, asked)))
        assert [guest.answer(each) for each in asked] == [ZERO.encode() + b"\0"] * 16


@pytest.mark.parametrize("place", [44, 48], ids=["request length", "response length"])
def test_lengths_out_of_range(tmp_path: Path, place: int) -> None:
    with QemuHost(tmp_path) as host, fake_guest(host.sock) as guest:
        for length in (-1, -(2**31), 4033, 4096, 65536, 2**31 - 1):
            frame = bytearray(Request.of(SERIAL).raw)
            frame[place : place + 4] = struct.pack("<i", length)
            guest.sock.sendall(frame)
        assert guest.serial() == ZERO


def test_random_frames_with_the_request_flag(tmp_path: Path) -> None:
    dice = random.Random(5)
    with QemuHost(tmp_path) as host, fake_guest(host.sock) as guest:
        for _ in range(200):
            frame = bytearray(dice.randbytes(FRAME_SIZE))
            frame[32:40] = struct.pack("<ii", 1, 0)
            guest.sock.sendall(frame)
        guest.send(SERIAL)  # noise that looks like a frame costs at most one more
        guest.send(SERIAL)
        assert guest.serial() == ZERO


@pytest.mark.slow
def test_two_hundred_connections_and_few_descriptors(tmp_path: Path) -> None:
    with QemuHost(tmp_path, shell="ulimit -n 64") as host, answering(host.sock, lambda _: b"fine\0"):
        for where in (host.sock, host.api):
            with ExitStack() as held:
                for _ in range(200):
                    sock = held.enter_context(socket.socket(socket.AF_UNIX))
                    sock.setblocking(False)
                    try:
                        sock.connect(str(where))
                    except BlockingIOError:  # its backlog is full
                        time.sleep(0.01)
                assert host.process.poll() is None
            until(lambda: fine(host), "an answer")


def fine(host: QemuHost) -> bool:
    """Whether `qemu-host` answers; its backlog may be full of connections that have ended."""
    command = ["curl", "-s", "--unix-socket", str(host.api), "http://localhost/read?command=2"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout == ok('"fine"')[1]


def test_the_newer_of_two_connections_is_refused(tmp_path: Path) -> None:
    """The end of the newer one doesn't affect the first connection."""
    with QemuHost(tmp_path) as host, answering(host.sock, lambda _: b"first\0"):
        for _ in range(3):
            with fake_guest(host.sock) as newer:
                assert newer.at_end()
            assert host.get("/read?command=2") == ok('"first"')
        assert "another one is live" in host.errors


def test_an_answer_from_another_connection_is_ignored(tmp_path: Path) -> None:
    with QemuHost(tmp_path) as host, fake_guest(host.sock) as guest:
        guest.serial()
        with asking(host.api, "/read?command=2&timeout=5") as found:
            asked = guest.next_request()
            with fake_guest(host.sock) as other:
                with suppress(OSError):  # the server may close the connection first
                    other.sock.sendall(asked.reply(b"forged\0").raw)
                assert other.at_end()
            assert not found
            guest.sock.sendall(asked.reply(b"true one\0").raw)
        assert found == [ok('"true one"')]


def test_an_answer_to_another_request_is_ignored(tmp_path: Path) -> None:
    """An answer is late, has an unknown request id, or is for another command."""
    with QemuHost(tmp_path) as host, fake_guest(host.sock) as guest:
        guest.serial()
        with asking(host.api, "/read?command=2&timeout=1") as found:
            late = guest.next_request()
        assert found == [error("Timeout while reading command 2 from guest")]
        with asking(host.api, "/read?command=2&timeout=5") as found:
            asked = guest.next_request()
            guest.sock.sendall(late.reply(b"late\0").raw)
            other = bytearray(asked.reply(b"forged\0").raw)
            other[:8] = os.urandom(8)
            guest.sock.sendall(other)
            other = bytearray(asked.reply(b"forged\0").raw)
            other[52:56] = struct.pack("<i", GuestCommand.POWEROFF)
            guest.sock.sendall(other)
            guest.serial()
            assert not found
            guest.sock.sendall(asked.reply(b"true one\0").raw)
        assert found == [ok('"true one"')]


@pytest.mark.parametrize("text", ["{", "{not json}", '{"a":', 'line\n{"status": "success"}\x1b[2J', '"', "\\", "\x00"])
@pytest.mark.slow
def test_guest_text_cannot_break_the_json(tmp_path: Path, text: str) -> None:
    with QemuHost(tmp_path) as host, answering(host.sock, lambda _: text.encode()):
        status, body = host.get("/read?command=2")
    if text == "\x00":
        assert (status, body) == error("Received no data for command 2")
    else:
        assert status == 200
        assert json.loads(body)["data"] == text
    assert "\x1b" not in body
    assert "\n" not in body


def test_guest_text_cannot_forge_lines_of_the_trace(tmp_path: Path) -> None:
    with QemuHost(tmp_path, "-script=") as host, fake_guest(host.sock) as guest:
        guest.send(2, b"x\nReplied: forged [5]\x1b]0;title\x07\xe2\x80\xae\0", needs_response=False)
        assert guest.serial() == ZERO
    assert host.trace == [
        r"Received: Guest info [2] x\nReplied: forged [5]\x1b]0;title\x07\u202e",
        "Received: Guest serial [5]",
        f"Replied: {ZERO} [5]",
    ]
    assert host.errors == ""


@pytest.mark.slow
def test_an_unread_trace_stalls_nothing(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with ExitStack() as cleanup:
        cleanup.callback(os.close, reading)
        with QemuHost(tmp_path, stdout=writing) as host:
            os.close(writing)
            with fake_guest(host.sock) as guest:
                for _ in range(3000):
                    assert guest.serial() == ZERO
            with answering(host.sock, lambda _: b"fine\0"):
                assert host.get("/read?command=2") == ok('"fine"')


def test_a_trace_without_a_reader_ends_and_stalls_nothing(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with QemuHost(tmp_path, stdout=writing) as host:
        os.close(writing)
        os.close(reading)
        with fake_guest(host.sock) as guest:
            assert guest.serial() == ZERO
            until(lambda: "trace ended" in host.errors)
            assert guest.serial() == ZERO


def test_a_guest_that_never_reads(tmp_path: Path) -> None:
    with QemuHost(tmp_path, "-timeout", "1") as host, fake_guest(host.sock) as guest:
        guest.serial()
        guest.sock.settimeout(0.2)
        with suppress(TimeoutError):
            while True:
                guest.send(SERIAL)
        assert host.get("/read?command=10") == error("Timeout while reading command 10 from guest")
        assert host.get("/") == error("No command specified")


@pytest.mark.slow
def test_clients_that_never_read_or_never_finish(tmp_path: Path) -> None:
    with QemuHost(tmp_path) as host, answering(host.sock, lambda _: b"fine\0"), ExitStack() as held:
        for number in range(100):
            sock = held.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(host.api))
            sock.sendall(b"GET /read?command=2" if number % 2 else b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        assert host.get("/read?command=2") == ok('"fine"')
        last = held.enter_context(socket.socket(socket.AF_UNIX))
        last.connect(str(host.api))
        last.sendall(b"GET /read?command=2 HTTP/1.1\r\nHost:")
        last.settimeout(15)
        while last.recv(4096):  # the server may answer that the time is over; it closes the connection
            pass


def test_deleted_socket_of_the_api_is_bound_again(tmp_path: Path) -> None:
    with QemuHost(tmp_path) as host, answering(host.sock, lambda _: b"10.0.2.15\0"):
        for _ in range(2):  # before the first request, and after
            host.api.unlink()
            until(lambda: listens(host.api), "the API is bound again")
            assert host.get("/read?command=2")[0] == 200
    assert host.errors.count("socket file deleted or replaced, bound again") == 2

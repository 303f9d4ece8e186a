"""The page with many guests and many frames, and axe-core's findings."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from tests.control.controlled import Answers, answering
from tests.serving import fake_guest
from tests.web.browser import Page
from tests.web.signed_in import web
from tests.web.test_page import ANSWERS, open_guest
from vchannel import Connection, GuestCommand, HostCommand, Request, Role

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

GUESTS = 1000
FRAMES = 20_000

AXE = "axe-playwright-python==0.1.8"
"""A package that contains axe-core 4.12. Neither its other files nor its dependencies are used."""


def test_a_thousand_guests_scroll(page: Page, short_path: Path) -> None:
    config = short_path / "c.toml"
    config.write_text("".join(f'[guests.g{each:04}]\nsock = "{short_path}/{each}"\n' for each in range(GUESTS)))
    with web(short_path, "--config", config, guest=False) as served:
        page.open(served.link())
        page.until_shown("1000 guests, 1000 with a problem")
        page.run("window.last = document.querySelector('#guests').lastElementChild; last.scrollIntoView()")
        assert page.run("scrollY > 10000 && last.getBoundingClientRect().bottom <= innerHeight")
        page.run("last.querySelector('a').focus({ preventScroll: true })")
        with fake_guest(short_path / "999") as guest:
            guest.serial()
            page.until("last.innerText.includes('ready')")
            # The row was changed in its place, so the scroll position and the focus stay.
            assert page.run("last.isConnected && document.activeElement === last.querySelector('a')")
            assert page.run("scrollY > 10000")
        page.run("document.querySelector('#filter').value = 'g0500'")
        page.run("document.querySelector('#filter').dispatchEvent(new Event('input'))")
        page.until_shown("1 shown")


def test_a_flood_of_frames_leaves_the_page_usable(page: Page, tmp_path: Path) -> None:
    """Each event has a limited number of frames, and all frames are counted."""
    with web(tmp_path, "--frame-rate", "0") as served, fake_guest(tmp_path / "nas") as guest:
        guest.serial()
        open_guest(page, served)
        page.run(
            """new Promise((opened) => {
              window.got = { events: 0, most: 0, to_host: 0, to_guest: 0 };
              const source = new EventSource('/events?frames=nas');
              source.onopen = opened;
              source.addEventListener('frames', (event) => {
                const facts = JSON.parse(event.data);
                got.events += 1;
                got.most = Math.max(got.most, facts.frames.length);
                got.to_host += facts.to_host;
                got.to_guest += facts.to_guest;
                document.body.dataset.got = got.to_guest;
              });
            })"""
        )
        answered = threading.Thread(target=_read, args=(guest.sock, FRAMES * 4096))
        answered.start()
        some = b"".join(Connection(Role.GUEST).send(Request.of(HostCommand.HOST_MAC)) for _ in range(64))
        sent = threading.Thread(target=_send, args=(guest.sock, some, FRAMES))
        sent.start()
        page.until("Number(document.body.dataset.got ?? 0) > 0")
        page.click("Freeze")  # while frames come
        page.until("document.querySelector('#confirm').open")
        page.click("Cancel")
        page.until(f"Number(document.body.dataset.got) >= {FRAMES}")
        sent.join()
        answered.join()
        got = page.run("got")
        assert got["to_host"] == FRAMES
        assert got["to_guest"] >= FRAMES  # the page has asked the guest too
        assert got["most"] <= 50
        assert got["events"] < FRAMES / 50
        page.until_shown(f"host_mac\t{FRAMES}", "#counts")
        assert page.run("document.querySelector('#timeline').rows.length") <= 200
        page.until_shown("frames; all are counted", "main")


def _send(sock: socket.socket, some: bytes, frames: int) -> None:
    while frames:
        data = some[: frames * 4096]
        sock.sendall(data)
        frames -= len(data) // 4096


def _read(sock: socket.socket, size: int) -> None:
    while size:
        size -= len(sock.recv(min(size, 1 << 20)))


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core's script, fetched into the cache once."""
    cache = os.environ.get("VHOSTCOMM_CACHE") or f"{os.environ['XDG_CACHE_HOME']}/vhostcomm"
    file = Path(cache) / f"{AXE}.js"
    if not file.exists():
        made = tmp_path_factory.mktemp("axe")
        fetched = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", made, AXE],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if fetched.returncode:
            pytest.skip(f"axe-core can't be fetched: pip download --no-deps {AXE}")
        (wheel,) = made.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            script = archive.read("axe_playwright_python/axe.min.js")
        file.parent.mkdir(parents=True, exist_ok=True)
        complete = file.with_name(f"{file.name}.{os.getpid()}")  # another process may fetch it too
        complete.write_bytes(script)
        complete.replace(file)
    return file.read_text()


def complaints(page: Page, axe: str) -> list[str]:
    """axe-core's findings on the page as it is, light and dark."""
    said = []
    if page.run("!('axe' in window)"):
        page.run(f"{axe}; 1")
    for dark in (True, False):
        page.size(1280, 800, dark=dark)
        found = page.run("axe.run().then(({ violations }) => JSON.stringify(violations))")
        said += [f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in json.loads(found)]
    return said


def test_axe_finds_nothing(page: Page, axe: str, tmp_path: Path) -> None:
    answers: Answers = {int(key): value for key, value in ANSWERS.items()}
    with (
        web(tmp_path, "--guest-serial", "1234ABC567890") as served,
        answering(tmp_path / "nas", answers) as guest,
    ):
        page.open(served.link())
        page.until_shown("1 guest, all well")
        assert not complaints(page, axe)
        page.run("location.hash = 'guest=nas'")
        page.until_shown("4711 (inferred)", "#about")
        guest.guest.send(HostCommand.HOST_MAC)
        page.until_shown("asks 14 host_mac", "#timeline")
        page.run("document.querySelectorAll('#snippets details').forEach((each) => each.open = true)")
        page.click("Freeze")
        page.run("document.querySelector('#confirm-yes').click()")
        page.until_shown("Freeze: frozen until", "#outcome")
        assert not complaints(page, axe)
        page.click("Shut down")
        page.until("document.querySelector('#confirm').open")
        assert not complaints(page, axe)
        page.key("Escape")
        guest.answers[GuestCommand.REBOOT] = lambda: None
        page.click("Reboot")
        page.run("document.querySelector('#confirm-yes').click()")
        page.until_shown("Reboot: connection lost", "#outcome")
        page.until_shown("QEMU is not connected to", "#problem")
        assert not complaints(page, axe)
        refused = Page(page.browser)
        refused.open(f"http://{served.host}/")
        refused.until_shown("not signed in")
        assert not complaints(refused, axe)
        refused.close()

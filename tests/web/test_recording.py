"""Recordings that clients begin and end, over HTTP and in the page."""

from __future__ import annotations

import json
import resource
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.control.controlled import Answers, answering, client, controlled, post
from tests.serving import FakeGuest, fake_guest, run_vhostcomm, until
from tests.web.browser import Page
from tests.web.signed_in import web
from tests.web.test_page import ANSWERS, open_guest
from vchannel import HostCommand
from vhostcomm.capture.reading import read_capture
from vhostcomm.channel.recordings import LIMIT


def recorded(http: httpx.Client, redacted: str = "no") -> str:
    got = http.get(f"/guests/nas/capture?redacted={redacted}")
    assert got.status_code == 200, got.text
    return got.text


def test_a_recording_begins_and_ends_while_a_guest_is_served(tmp_path: Path) -> None:
    words = ("--guest-serial", "1234ABC567890")
    with controlled(tmp_path, *words) as (_, http), fake_guest(tmp_path / "nas") as guest:
        assert http.get("/guests/nas/capture").status_code == 409
        assert post(http, "/guests/nas/record", on=False) == (200, {"guest": "nas", "recording": None})
        guest.ask(HostCommand.HOST_MAC)
        status, begun = post(http, "/guests/nas/record", on=True)
        file = Path(begun["recording"]["file"])
        assert (status, begun["recording"]["active"], stat.S_IMODE(file.stat().st_mode)) == (200, True, 0o600)
        guest.serial()
        running = read_capture(recorded(http).splitlines(keepends=True))
        status, again = post(http, "/guests/nas/record", on=True)
        assert (status, again["error"]["what"]) == (409, "not recorded")
        assert str(file) in again["error"]["why"]
        assert post(http, "/guests/nas/record", on=False)[1]["recording"]["active"] is False
        guest.ask(HostCommand.HOST_MAC)
        whole = recorded(http)
        assert [each for each in whole.splitlines() if "1234ABC567890" in each]
        assert len(read_capture(whole.splitlines(keepends=True)).records) == len(running.records) == 2
        redacted = recorded(http, "yes")
        assert json.loads(redacted.splitlines()[0])["redacted"] is True
        assert "1234ABC567890" not in redacted
        for wrong in ({}, {"on": 1}, {"off": True}):
            assert http.post("/guests/nas/record", json=wrong).status_code == 422
        assert http.get("/guests/nas/capture?redacted=perhaps").status_code == 422
        file.write_text("no capture")
        assert http.get("/guests/nas/capture").json()["error"]["what"] == "not readable"
        file.unlink()
        assert http.get("/guests/nas/capture?redacted=no").json()["error"]["what"] == "not readable"


def test_two_clients_begin_one_recording(tmp_path: Path) -> None:
    with controlled(tmp_path) as (_, http), fake_guest(tmp_path / "nas") as guest, ThreadPoolExecutor(8) as pool:
        guest.serial()
        answers = [pool.submit(post, http, "/guests/nas/record", on=True) for _ in range(8)]
        assert sorted(each.result()[0] for each in answers) == [200] + 7 * [409]
        assert post(http, "/guests/nas/record", on=False)[1]["recording"]["active"] is False


def fill(guest: FakeGuest) -> None:
    for _ in range(64):
        guest.send(HostCommand.GUEST_POWER, b"x" * 4000, needs_response=False)
    guest.serial()


@pytest.mark.parametrize("fault", ["limit", "disk"])
@pytest.mark.slow
def test_a_recording_that_ends_early_has_a_reason_and_stalls_no_guest(tmp_path: Path, fault: str) -> None:
    """A limit on the size of files replaces the full disk here: it makes writes fail in the same way."""
    with controlled(tmp_path) as (daemon, http), fake_guest(tmp_path / "nas") as guest:
        if fault == "disk":
            resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        guest.serial()
        post(http, "/guests/nas/record", on=True)
        while not (found := http.get("/guests/nas").json()["recording"])["ended"]:
            fill(guest)
        assert found["active"] is False
        assert found["ended"] == ("its limit is reached" if fault == "limit" else "File too large")
        text = recorded(http)
        assert len(text) <= LIMIT
        assert read_capture(text.splitlines(keepends=True)).records
        if fault == "limit":
            assert post(http, "/guests/nas/record", on=True)[0] == 200  # another one, in a file of its own
            assert len({*Path(found["file"]).parent.glob("nas-*.jsonl")}) >= 2


def test_a_recording_is_complete_when_the_daemon_stops(tmp_path: Path) -> None:
    with controlled(tmp_path) as (_, http), fake_guest(tmp_path / "nas") as guest:
        file = post(http, "/guests/nas/record", on=True)[1]["recording"]["file"]
        guest.serial()
    shown = run_vhostcomm("capture", "show", file)
    assert (shown.returncode, shown.stdout.count("GUEST_SERIAL")) == (0, 2), shown.stderr


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_the_page_records_and_shows_captures(page: Page, tmp_path: Path) -> None:
    answers: Answers = {int(key): value for key, value in ANSWERS.items()}
    with web(tmp_path) as served, client(served.control) as http, answering(tmp_path / "nas", answers) as guest:
        open_guest(page, served)
        page.until_shown("4711 (inferred)", "#about")
        page.click("Start recording")
        page.until_shown("The recording has begun.")
        page.until_shown("Recording since", "#recording")
        guest.guest.send(HostCommand.HOST_MAC)
        until(lambda: "HOST_MAC" in recorded(http))
        page.click("Show its content")
        page.until_shown("asks 14 HOST_MAC", "#look")
        page.click("Stop recording")
        page.until_shown("Recorded since", "#recording")
        links = page.run("[...document.querySelectorAll('#recording a')].map((each) => each.getAttribute('href'))")
        assert links == ["/guests/nas/capture?redacted=yes", "/guests/nas/capture?redacted=no"]
        texts = page.run(f"Promise.all({json.dumps(links)}.map((each) => fetch(each).then((got) => got.text())))")
        assert [json.loads(each.splitlines()[0])["redacted"] for each in texts] == [True, False]
        skipped = '{"t": 1, "dir": "guest>host", "skipped": "silence", "size": 1}\n'
        for name, content, said in [
            ("skipped.jsonl", texts[1] + skipped, "guest 1 byte outside any frame"),
            ("other.jsonl", texts[0], "other.jsonl: "),
            ("picture.jsonl", "<img src=x onerror=alert(1)>", "picture.jsonl is not a capture: line 1 is not JSON."),
            ("json.jsonl", "{}", "json.jsonl is not a capture: line 1 is not the header of a capture."),
            ("cut.jsonl", texts[1] + '{"t": 1', " is not JSON."),
            ("list.jsonl", texts[1] + "[]\n", " is not the record of a frame."),
            (
                "sideways.jsonl",
                texts[1] + '{"t": 1, "dir": "sideways", "command": 5}\n',
                " is not the record of a frame.",
            ),
            ("nothing.jsonl", texts[1] + '{"t": 1, "dir": "guest>host"}\n', " is not the record of a frame."),
            ("empty.jsonl", "", "empty.jsonl is not a capture: line 1 is not the header of a capture."),
        ]:
            file = tmp_path / name
            file.write_text(content)
            node = page.call("DOM.getDocument")["root"]["nodeId"]
            chosen = page.call("DOM.querySelector", nodeId=node, selector="#look-file")["nodeId"]
            page.call("DOM.setFileInputFiles", files=[str(file)], nodeId=chosen)
            page.until_shown(said, "#look")

"""The page in a browser: a real daemon, and guests at its sockets that send real frames."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.control.controlled import INFORMATION, Answering, answering, client
from tests.serving import fake_guest
from tests.web.browser import Page
from tests.web.signed_in import Web, web
from vchannel import GuestCommand, HostCommand

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

ANSWERS = {
    GuestCommand.GET_INFORMATION: INFORMATION,
    GuestCommand.GET_UPTIME: b"4711\0",
    GuestCommand.FS_FREEZE: b"\0",
    GuestCommand.FS_UNFREEZE: b"\0",
    GuestCommand.REBOOT: b"\0",
}

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<script>document.title='owned'</script>",
    "\"'><svg/onload=alert(1)>",
    "javascript:alert(1)//{{7*7}}${7*7}",
    "</td></tr></table><h1>owned</h1>",
    "\u202egnp.exe\u2028\x1b[31m\x00\ufffe",
    "A" * 4000,
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("page")
    config = folder / "vhostcomm.toml"
    config.write_text(
        f'[guests.nas]\nsock = "{folder}/nas"\nserial = "1234ABC567890"\n'
        f'[guests.two]\nsock = "{folder}/two"\nserial = "2234ABC567890"\n'
    )
    with web(folder, "--config", config, guest=False) as made:
        yield made


@pytest.fixture
def guest(served: Web) -> Iterator[Answering]:
    with answering(served.control.parent / "nas", {int(key): value for key, value in ANSWERS.items()}) as made:
        yield made


def open_guest(page: Page, served: Web, name: str = "nas") -> None:
    page.open(served.link())
    page.run(f"location.hash = 'guest={name}'")
    page.until_shown("Configured:")
    page.until("document.querySelector('#snippets details')")
    page.until(f"document.querySelector('#guest').dataset.live === {name!r}")  # frames appear from now on


def shows_no_error(page: Page) -> bool:
    """Assert that neither the console nor the content security policy reports an error."""
    page.run("1")  # earlier events arrive before its answer
    said = [each for each in page.browser.events if each.get("sessionId") == page.session]
    errors = [
        each["params"]
        for each in said
        if each["method"] == "Runtime.exceptionThrown"
        or (each["method"] == "Log.entryAdded" and each["params"]["entry"]["level"] == "error")
    ]
    assert not errors
    return True


def test_the_list_has_each_guest_with_cause_and_remedy(page: Page, served: Web, guest: Answering) -> None:
    page.open(served.link())
    page.until_shown("2 guests, 1 with a problem")
    page.until_shown("10.0.2.15:5000", "#guests")
    nas, two = page.run("[...document.querySelector('#guests').rows].map((row) => row.innerText)")
    assert re.match(r"nas\s+ready \d+ s\s+1234ABC567890\s+10\.0\.2\.15:5000\s+\d+ s ago", nas)
    assert re.match(r"two\s+absent", two)
    assert f"QEMU is not connected to {served.control.parent}/two" in two
    assert "not asked yet" in two
    assert page.run("document.querySelector('#guests a[target]').href") == "http://10.0.2.15:5000/"
    assert page.run("location.pathname + location.search") == "/"  # the key is not in the history
    assert shows_no_error(page)


def test_the_filter_finds_names_and_problems(page: Page, served: Web, guest: Answering) -> None:
    page.open(served.link())
    page.until_shown("2 guests")
    page.run("document.querySelector('#filter').focus()")
    for letter in "absent":
        page.key(letter, letter)
    page.until_shown("1 shown")
    assert page.run("[...document.querySelector('#guests').rows].map((row) => row.checkVisibility())") == [False, True]


def test_questions_and_answers_appear_as_they_come(page: Page, served: Web, guest: Answering) -> None:
    open_guest(page, served)
    page.until_shown("4711 (inferred)", "#about")
    guest.guest.send(HostCommand.UPDATE_DEADLINE)
    guest.guest.send(HostCommand.GUEST_POWER, b"up\0", needs_response=False)
    page.until_shown("guest notifies 3 guest_power\tup", "#timeline")
    lines = page.run("document.querySelector('#timeline').innerText").splitlines()
    asked = next(line for line in reversed(lines) if "asks 16 update_deadline" in line)
    answered = next(line for line in reversed(lines) if "answers 16 update_deadline" in line)
    assert lines.index(answered) < lines.index(asked)  # the latest first
    assert answered.endswith("9223372036854775807")
    assert any("rebooted" in line for line in lines)
    page.until_shown("update_deadline\t9223372036854775807", "#served")
    page.until_shown("get_uptime\tanswered", "#calls")
    page.until_shown("guest_power\t1", "#counts")
    page.until("document.querySelector('#graph polyline').getAttribute('points').includes(' ')")
    assert shows_no_error(page)


def test_pause_keeps_the_lines_in_place(page: Page, served: Web, guest: Answering) -> None:
    open_guest(page, served)
    page.until_shown("4711 (inferred)", "#about")
    page.click("", "#pause")
    guest.guest.send(HostCommand.HOST_MAC)
    page.until_shown("host_mac", "#served")  # shown after its frames have arrived
    assert "host_mac" not in page.run("document.querySelector('#timeline').innerText")
    page.click("", "#pause")
    page.until_shown("host_mac", "#timeline")


def test_snippets_can_be_copied(page: Page, served: Web) -> None:
    open_guest(page, served)
    texts = page.run("[...document.querySelectorAll('#snippets pre')].map((each) => each.textContent)")
    assert f"path={served.control.parent}/nas" in texts[0]
    assert "<channel" in texts[1]
    assert "services:" in texts[2]
    page.run("document.querySelector('#snippets details').open = true")
    assert "\n    qmp = " in page.run("document.querySelector('#snippets details').innerText")
    page.click("Copy for QEMU")
    page.until("/Copied|Selected/.test(document.querySelector('#snippets').innerText)")
    assert shows_no_error(page)


def test_a_guest_is_shut_down_by_keyboard_alone(page: Page, served: Web, guest: Answering) -> None:
    guest.answers[GuestCommand.POWEROFF] = lambda: None  # the guest disconnects
    page.open(served.link())
    page.until_shown("2 guests")

    def tab_to(text: str) -> None:
        for _ in range(30):
            page.key("Tab")
            if page.run("document.activeElement.textContent.trim()") == text:
                return
        raise AssertionError(f"no {text!r} in the order of focus")

    tab_to("nas")
    page.key("Enter")
    page.until_shown("Configured:")
    assert page.run("document.activeElement.id") == "guest-title"
    tab_to("Shut down")
    page.key("Enter")
    page.until("document.querySelector('#confirm').open")
    assert page.run("document.activeElement.textContent") == "Cancel"  # Enter twice does no harm
    assert "asked to power itself off" in page.run("document.querySelector('#confirm').innerText")
    page.key("Escape")
    page.until("!document.querySelector('#confirm').open")
    assert not [each for each in guest.asked if each == GuestCommand.POWEROFF]
    assert page.run("document.activeElement.textContent") == "Shut down"
    page.key(" ")
    page.until("document.querySelector('#confirm').open")
    tab_to("Shut down")
    page.key("Enter")
    page.until_shown("Shut down: gone after", "#outcome")
    assert "QEMU closed the connection" in page.run("document.querySelector('#outcome').innerText")
    page.until_shown("QEMU is not connected, so nothing can be asked.", "#asked")
    assert shows_no_error(page)


def test_freeze_shows_its_end_and_its_client(page: Page, served: Web, guest: Answering) -> None:
    open_guest(page, served)
    page.click("Freeze")
    page.run("document.querySelector('#seconds').value = 60")
    page.run("document.querySelector('#confirm-yes').click()")
    page.until_shown("Freeze: frozen until", "#outcome")
    page.until_shown("by web page: peer 127.0.0.1:", "#asked")
    page.until_shown("ready, frozen", "#guest-state")
    page.click("Thaw")
    page.run("document.querySelector('#confirm-yes').click()")
    page.until_shown("Thaw: thawed", "#outcome")
    page.until_shown("No stop and no freeze is pending", "#asked")
    asked = [each for each in guest.asked if each in {GuestCommand.FS_FREEZE, GuestCommand.FS_UNFREEZE}]
    assert asked == [GuestCommand.FS_FREEZE, GuestCommand.FS_UNFREEZE]
    assert shows_no_error(page)


def test_two_people_press_shutdown_at_once(page: Page, served: Web, guest: Answering) -> None:
    pressed = threading.Event()
    guest.answers[GuestCommand.POWEROFF] = lambda: None if pressed.wait(20) else b"\0"
    other = Page(page.browser)
    for each in (page, other):
        open_guest(each, served)
        each.click("Shut down")
    page.run("document.querySelector('#confirm-yes').click()")
    # The other page's dialog is open, and shows what was asked meanwhile.
    other.until_shown("Last asked: power-off", "#confirm")
    other.run("document.querySelector('#confirm-yes').click()")
    other.until_shown("asked, waiting", "#outcome")
    pressed.set()
    for each in (page, other):
        each.until_shown("Shut down: gone ", "#outcome")
    assert GuestCommand.POWEROFF in guest.asked
    other.close()


def test_a_failed_action_shows_its_reason(page: Page, served: Web, guest: Answering) -> None:
    open_guest(page, served)
    guest.answers[GuestCommand.REBOOT] = lambda: None
    page.click("Reboot")
    page.run("document.querySelector('#confirm-yes').click()")
    page.until_shown("Reboot: connection lost: ", "#outcome")
    assert GuestCommand.REBOOT in guest.asked


def test_a_guests_text_is_text(page: Page, served: Web, guest: Answering) -> None:
    guest.answers[GuestCommand.GET_UPTIME] = HOSTILE[0].encode() + b"\0"
    open_guest(page, served)
    page.until_shown(f"{HOSTILE[0]} (inferred)", "#about")
    for text in HOSTILE:
        guest.guest.send(HostCommand.GUEST_POWER, text.encode()[:4000], needs_response=False)
        page.until_shown(f"guest notifies 3 guest_power\t{text.split(chr(0x202E))[0][:200]}", "#timeline")
    assert page.run("document.querySelectorAll('main script, main img, main svg:not(.rates), main h1').length") == 2
    assert page.run("document.title") == "nas \u2013 vhostcomm"
    assert not {"\u202e", "\x1b", "\u2028"} & set(page.run("document.querySelector('#timeline').innerText"))
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert shows_no_error(page)


def test_inline_scripts_do_not_run(page: Page, served: Web) -> None:
    """The policy would stop them even if a guest's text became markup."""
    page.open(served.link())
    page.until_shown("2 guests")
    page.run(
        "document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')"
    )
    page.browser.event(page.session, "Log.entryAdded", lambda each: "Content Security Policy" in each["entry"]["text"])
    assert page.run("document.title") == "Guests \u2013 vhostcomm"


def test_a_removed_guest_is_reported_and_can_return(page: Page, tmp_path: Path) -> None:
    config = tmp_path / "vhostcomm.toml"
    nas = f'[guests.nas]\nsock = "{tmp_path}/nas"\n'
    config.write_text(f'[guests.a]\nsock = "{tmp_path}/a"\n{nas}')
    with web(tmp_path, "--config", config, guest=False) as served, client(served.control) as http:
        open_guest(page, served)
        config.write_text(f'[guests.a]\nsock = "{tmp_path}/a"\n')
        assert http.post("/reload").status_code == 200
        page.until_shown("no longer served", "#gone")
        assert page.run("[...document.querySelectorAll('#actions button')].every((each) => each.disabled)")
        page.run("location.hash = ''")
        page.until_shown("1 guest,")
        page.run("location.hash = 'guest=nas'")
        page.until_shown("no longer served", "#gone")
        config.write_text(f'[guests.a]\nsock = "{tmp_path}/a"\n{nas}')
        assert http.post("/reload").status_code == 200
        with fake_guest(tmp_path / "nas") as again:
            again.serial()
            page.until("document.querySelector('#gone').textContent === ''")
            page.until_shown("ready", "#guest-state")


def test_an_open_page_survives_a_restart(page: Page, tmp_path: Path) -> None:
    with web(tmp_path) as before:
        open_guest(page, before)
        before.daemon.send_signal(signal.SIGTERM)
        page.until_shown("The daemon does not answer since", "#connection")
    with web(tmp_path, port=before.port):
        page.until_shown("The daemon is back since", "#connection")
        with fake_guest(tmp_path / "nas") as guest:
            guest.serial()
            page.until_shown("guest asks 5 guest_serial", "#timeline")
        assert "does not answer" not in page.run("document.querySelector('#connection').innerText")


def test_a_page_whose_sign_in_has_ended_shows_the_remedy(page: Page, tmp_path: Path) -> None:
    with web(tmp_path) as before:
        page.open(before.link())
        page.until_shown("1 guest")
    (Path(os.environ["RUNTIME_DIRECTORY"]) / f".web-{before.port}.secret").unlink()
    with web(tmp_path, port=before.port):
        page.until_shown("run `vhostcomm web` where the daemon runs", "#connection")
        assert page.run("fetch('/guests').then((answer) => answer.status)") == HTTPStatus.UNAUTHORIZED


SIZES = [(360, 640, False), (360, 640, True), (1280, 800, True), (3840, 2160, False)]


def test_each_size_shows_all_without_scrolling_sideways(page: Page, served: Web, guest: Answering) -> None:
    page.open(served.link())
    page.until_shown("10.0.2.15:5000", "#guests")
    for width, height, dark in SIZES:
        page.size(width, height, dark=dark)
        assert page.run("document.documentElement.scrollWidth") <= width
        background = page.run("getComputedStyle(document.documentElement).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) < 200) is dark
    page.run("location.hash = 'guest=nas'")
    page.until_shown("4711 (inferred)", "#about")
    for width, height, dark in SIZES:
        page.size(width, height, dark=dark)
        assert page.run("document.documentElement.scrollWidth") <= width


def test_the_page_is_small() -> None:
    folder = Path(__file__).parents[2] / "vhostcomm/control/page"
    assert sum(each.stat().st_size for each in folder.iterdir() if each.is_file()) < 60_000
    assert "innerHTML" not in "".join(each.read_text() for each in folder.glob("*.js"))

"""The admission of requests, without a daemon. test_origin and test_token show the same over sockets."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.control.test_origin import ANSWERED, HERE, MOZILLA, PAGE, REFUSED
from vhostcomm.config.address import Listen, ListenTcp
from vhostcomm.control.admission import check_origin, check_own_page, has_token, own_names, peer_of
from vhostcomm.control.problems import Problem

TOKEN = b"a-long-random-secret"


@pytest.mark.parametrize("shown", [[b"Bearer " + TOKEN], [b"bearer " + TOKEN], [b"BEARER " + TOKEN]])
def test_the_token_is_accepted(shown: list[bytes]) -> None:
    assert has_token(shown, TOKEN)


@pytest.mark.parametrize(
    "shown",
    [
        [],
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        *([b"Bearer " + TOKEN[:size]] for size in range(len(TOKEN))),
        [b"Bearer " + TOKEN[1:]],
        [b"Bearer " + TOKEN + b"x"],
        [b"Bearer  " + TOKEN],
        [b"Bearer\t" + TOKEN],
        [b"Bearer " + TOKEN.upper()],
        [b"Basic " + TOKEN],
        [TOKEN],
        [b"Bearer " + TOKEN, b"Bearer " + TOKEN],
        [b"Bearer " + TOKEN, b"Bearer x"],
        [b"Bearer x", b"Bearer " + TOKEN],
    ],
    ids=str,
)
def test_anything_but_the_whole_token_is_rejected(shown: list[bytes]) -> None:
    assert not has_token(shown, TOKEN)


@pytest.mark.parametrize("shown", [[], [b"Bearer x"], [b"", b""]])
def test_without_a_token_everything_is_accepted(shown: list[bytes]) -> None:
    assert has_token(shown, b"")


def headers(lines: list[str]) -> dict[bytes, bytes]:
    pairs = (line.split(": ", 1) for line in lines)
    return {name.lower().encode(): value.encode() for name, value in pairs}


NAMES = own_names(ListenTcp("127.0.0.1", 2210))


@pytest.mark.parametrize(
    "lines", [*ANSWERED, ["Host: [::]"], ["Host: localhost:80", "Origin: http://LocalHost:80"]], ids=str
)
def test_programs_and_own_pages_are_accepted(lines: list[str]) -> None:
    check_origin(headers(lines), NAMES)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        *((lines, "the request comes from a page of another site") for lines in REFUSED if lines[0] == HERE),
        *((lines, "which may be any page's name for this machine") for lines in REFUSED if lines[0] != HERE),
        ([HERE, "Origin: https://127.0.0.1:2211", MOZILLA], "the request comes from a page of another site"),
        ([HERE, "Origin: ftp://127.0.0.1:2210"], "the request comes from a page of another site"),
        ([HERE, "Origin: http://[::1"], "the request comes from a page of another site"),
        (["Host: 192.0.2.1]"], "which may be any page's name"),
        (["Host: [192.0.2.1"], "which may be any page's name"),
        (["Host: [192.0.2.1]x"], "which may be any page's name"),
        (["Host: .localhost.example"], "which may be any page's name"),
        ([f"Origin: {PAGE}"], "the request comes from a page of another site"),
        (["Origin: http://"], "the request comes from a page of another site"),
    ],
    ids=str,
)
def test_pages_of_other_sites_are_rejected(lines: list[str], why: str) -> None:
    with pytest.raises(Problem) as caught:
        check_origin(headers(lines), NAMES)
    assert (caught.value.status, caught.value.what) == (403, "refused")
    assert why in caught.value.why
    assert caught.value.remedy


def test_a_page_is_named_in_the_reason() -> None:
    with pytest.raises(Problem, match=r"page\.example") as caught:
        check_origin(headers([HERE, f"Origin: {PAGE}"]), NAMES)
    assert caught.value.remedy == "ask with a program such as curl"


def test_browsers_can_be_rejected_by_their_user_agent() -> None:
    """A browser that loads an image for another machine's page names no page. Only its User-Agent shows it."""
    lines = headers([HERE, MOZILLA])
    check_origin(lines, NAMES)
    with pytest.raises(Problem, match="without naming its page") as caught:
        check_origin(lines, NAMES, browsers=False)
    assert caught.value.remedy == "ask with a program such as curl"
    check_origin(headers([HERE]), NAMES, browsers=False)
    check_origin(headers([HERE, "User-Agent: curl/8.14.1"]), NAMES, browsers=False)


def test_names_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Host.lab.example")
    assert own_names(Listen(Path("/run/control"))) is None
    assert own_names(ListenTcp("NAS.example", 2210)) == frozenset({"nas.example", "host.lab.example", "host"})
    assert own_names(ListenTcp("", 2210)) == frozenset({"host.lab.example", "host"})
    check_origin(headers(["Host: NAS.example:2210"]), own_names(ListenTcp("nas.EXAMPLE", 2210)))
    check_origin({}, NAMES)
    check_origin(headers(["Host: any.page.example"]), None)


@pytest.mark.parametrize(
    "lines",
    [["Sec-Fetch-Site: same-origin"], ["Sec-Fetch-Site: same-origin", f"Origin: {PAGE}"], [f"Origin: {PAGE}"]],
    ids=str,
)
def test_changes_by_the_own_page_are_accepted(lines: list[str]) -> None:
    check_own_page(headers(lines))


@pytest.mark.parametrize(
    "lines",
    [
        [],
        *([f"Sec-Fetch-Site: {site}"] for site in ("same-site", "cross-site", "none")),
        ["Sec-Fetch-Site: cross-site", f"Origin: {PAGE}"],
    ],
    ids=str,
)
def test_changes_by_others_are_rejected(lines: list[str]) -> None:
    with pytest.raises(Problem) as caught:
        check_own_page(headers(lines))
    assert (caught.value.status, caught.value.why, caught.value.remedy) == (
        403, "the change does not come from a page of this server", "use its page, or the verbs of vhostcomm",
    )  # fmt: skip


@pytest.mark.parametrize("state", [{}, {"state": {}}, {"state": {"peer": {}}}], ids=str)
def test_a_client_that_the_kernel_does_not_report_has_no_name(state: dict[str, object]) -> None:
    assert peer_of(state) == ""


def test_a_client_is_named_as_the_kernel_reports_it() -> None:
    assert peer_of({"state": {"peer": {"pid": 7, "uid": 1000}}}) == "pid 7 uid 1000"

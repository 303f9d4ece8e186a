"""Access to the web page: for browsers that have opened a link with a key, and not for pages of other sites."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import ENVIRONMENT, TIMEOUT, VHOSTCOMM, Serving, held_port, run_vhostcomm, started
from tests.web.signed_in import Web, cookie_of, web
from vhostcomm.config.address import runtime_directory
from vhostcomm.control.sign_in import COOKIE_LIFE, KEY_LIFE, KEYS_MAX, SignIn

BROWSER = {"Sec_Fetch_Site": "same-origin", "Accept": "*/*"}
TYPED = {"Sec_Fetch_Site": "none", "Accept": "text/html,*/*;q=0.8"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with web(tmp_path_factory.mktemp("web")) as made:
        yield made


@pytest.fixture(scope="module")
def cookie(served: Web) -> str:
    return served.cookie()


def test_a_link_signs_a_browser_in_once(served: Web) -> None:
    key = served.key()
    first = served.ask(key, **TYPED)
    assert (first.status, first.headers["location"]) == (303, "/")
    kept = first.headers["set-cookie"]
    assert re.fullmatch(
        rf"vhostcomm-{served.port}=[\w.-]+; Max-Age=604800; Path=/; HttpOnly; SameSite=Strict", kept, re.ASCII
    )
    assert served.ask("/", Cookie=cookie_of(first), **TYPED).status == 200
    again = served.ask(key, **TYPED)
    assert (again.status, "set-cookie" in again.headers) == (403, False)
    assert "used already" in again.body
    assert "vhostcomm web" in again.body
    # The browser that has used the key stays signed in.
    assert served.ask(key, Cookie=cookie_of(first), **TYPED).headers["location"] == "/"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "other=1",
        "vhostcomm-{port}=",
        "vhostcomm-{port}=1.2.3",
        "vhostcomm-{port}=é.é.é",
        "vhostcomm-{port}={value}x",
        "vhostcomm-{port}=9{value}",
        "vhostcomm-1={value}",
    ],
)
def test_nothing_is_answered_without_a_cookie(served: Web, cookie: str, given: str) -> None:
    text = given.format(port=served.port, value=cookie.partition("=")[2])
    for path in ("/", "/page/page.js", "/guests", "/events", "/metrics", "/openapi.json", "/no/such"):
        got = served.ask(path, **({"Cookie": text} if text else {}), **BROWSER)
        assert got.status == 401
        assert json.loads(got.body)["error"]["what"] == "not signed in"


@pytest.mark.parametrize("key", ["x", "", "%00", "é".encode().decode("latin-1"), "a" * 3000])
def test_other_keys_sign_nobody_in(served: Web, key: str) -> None:
    got = served.ask(f"/?key={key}".encode("latin-1").decode("ascii", "ignore"), **TYPED)
    assert got.status in {401, 403}
    assert "set-cookie" not in got.headers
    assert got.headers["content-type"] == "text/html; charset=utf-8"


def test_a_bearer_token_is_no_cookie(served: Web) -> None:
    assert served.ask("/guests", Authorization="Bearer a-long-random-secret", **BROWSER).status == 401


def test_a_person_without_a_cookie_gets_a_page_with_the_remedy(served: Web) -> None:
    got = served.ask("/", **TYPED)
    assert (got.status, got.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert "vhostcomm web" in got.body


def test_each_response_has_the_policy(served: Web, cookie: str) -> None:
    asked = [
        served.ask("/", **TYPED), served.ask("/", Cookie=cookie), served.ask("/guests", Cookie=cookie),
        served.ask("/guests/none", Cookie=cookie), served.ask("/", Cookie=cookie, Host="page.example"),
        served.ask("/guests/nas/thaw", "POST", "x" * (65 << 10), Cookie=cookie, **BROWSER),
    ]  # fmt: skip
    assert [each.status for each in asked] == [401, 200, 200, 404, 403, 413]
    for each in asked:
        assert each.headers["content-security-policy"].startswith("default-src 'self'; ")
        assert each.headers["x-content-type-options"] == "nosniff"


FOREIGN = [
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Origin": "https://page.example"},
    {"Origin": "http://127.0.0.1:3000"},
    {"Origin": "null"},
    {"Referer": "https://page.example/x"},
    {"Host": "page.example"},
    {"Host": "localhost.page.example"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_pages_of_other_sites_are_rejected(served: Web, cookie: str, headers: dict[str, str]) -> None:
    """The cookie doesn't help them: a browser sends it to every port of a host."""
    for path, method in ("/", "GET"), ("/guests", "GET"), ("/guests/nas/thaw", "POST"):
        assert served.ask(path, method, Cookie=cookie, **headers).status == 403
    key = served.key()
    assert served.ask(key, **headers).status == 403  # a link in a page or a mail is not used up
    assert served.ask(key, **TYPED).status == 303


@pytest.mark.parametrize("headers", [{}, {"Sec_Fetch_Site": "none"}, {"Referer": "http://127.0.0.1:{port}/"}], ids=str)
def test_only_the_page_itself_changes_anything(served: Web, cookie: str, headers: dict[str, str]) -> None:
    sent = {name: value.format(port=served.port) for name, value in headers.items()}
    got = served.ask("/guests/nas/thaw", "POST", Cookie=cookie, **sent)
    assert (got.status, json.loads(got.body)["error"]["what"]) == (403, "refused")


@pytest.mark.parametrize("headers", [{"Sec_Fetch_Site": "same-origin"}, {"Origin": "http://127.0.0.1:{port}"}], ids=str)
def test_the_page_uses_the_api_of_other_clients(served: Web, cookie: str, headers: dict[str, str]) -> None:
    sent = {name: value.format(port=served.port) for name, value in headers.items()}
    got = served.ask("/guests/nas/thaw", "POST", Cookie=cookie, **sent)
    assert (got.status, json.loads(got.body)["error"]["what"]) == (409, "not connected")
    assert json.loads(served.ask("/guests", Cookie=cookie, **BROWSER).body)["guests"][0]["name"] == "nas"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", socket.gethostname()])
def test_names_of_this_machine_are_accepted(served: Web, cookie: str, host: str) -> None:
    assert served.ask("/guests", Cookie=cookie, Host=f"{host}:{served.port}", **BROWSER).status == 200


def test_only_files_of_the_page_are_served(served: Web, cookie: str) -> None:
    assert served.ask("/", Cookie=cookie).headers["content-type"] == "text/html; charset=utf-8"
    for path in ("/page/", "/page/__init__.py", "/page/../web.py", "/page/%2e%2e/web.py", "/page//etc/passwd"):
        assert served.ask(path, Cookie=cookie).status == 404


def test_a_cookie_outlives_its_daemon_and_a_key_does_not(tmp_path: Path) -> None:
    """The cookie lets an open page reconnect without a new link."""
    with web(tmp_path) as before:
        cookie, key = before.cookie(), before.key()
        port = before.port
        assert key not in "".join(before.daemon.raw)
    kept = runtime_directory() / f".web-{port}.secret"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with web(tmp_path, port=port) as after:
        assert after.ask("/guests", Cookie=cookie, **BROWSER).status == 200
        assert after.ask(key, **TYPED).status == 403
    kept.write_bytes(b"short")
    with web(tmp_path, port=port) as another:
        assert another.ask("/guests", Cookie=cookie, **BROWSER).status == 401
    assert len(kept.read_bytes()) == 32


@pytest.mark.parametrize("spoil", ["readable", "link", "folder"])
def test_a_secret_that_others_could_know_is_not_used(tmp_path: Path, spoil: str) -> None:
    with held_port() as port:
        kept = runtime_directory() / f".web-{port}.secret"
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        if spoil == "folder":
            kept.mkdir()
        else:
            file = kept if spoil == "readable" else tmp_path / "elsewhere"
            file.write_bytes(b"s" * 32)
            file.chmod(0o644 if spoil == "readable" else 0o600)
            if spoil == "link":
                kept.symlink_to(file)
    with web(tmp_path, port=port) as made:
        known = SignIn(port, b"s" * 32).new_cookie().partition(";")[0]
        assert made.ask("/guests", Cookie=known, **BROWSER).status == 401
        assert made.ask("/guests", Cookie=made.cookie(), **BROWSER).status == 200
    if spoil == "folder":
        assert [line["level"] for line in made.daemon.log if line["event"] == "web sign-ins not kept"] == ["warning"]
        kept.rmdir()


def test_a_cookie_of_another_daemon_is_rejected(served: Web, cookie: str, tmp_path: Path) -> None:
    with web(tmp_path) as other:
        value = cookie.partition("=")[2]
        for given in (cookie, f"vhostcomm-{other.port}={value}"):
            assert other.ask("/guests", Cookie=given, **BROWSER).status == 401
        both = f"{cookie}; {other.cookie()}"
        assert other.ask("/guests", Cookie=both, **BROWSER).status == 200
        assert served.ask("/guests", Cookie=both, **BROWSER).status == 200


def test_keys_and_cookies_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    signing = SignIn(8470, b"s" * 32)
    old, cookie = signing.new_key(), signing.new_cookie().partition(";")[0].encode()
    keys = [signing.new_key() for _ in range(KEYS_MAX)]
    assert not signing.use(old)  # the oldest of too many keys
    assert signing.use(keys[0])
    assert not signing.use(keys[0])
    assert signing.accepts([b"a=1; " + cookie])
    with monkeypatch.context() as later:
        then = time.monotonic() + KEY_LIFE + 1
        later.setattr("vhostcomm.control.sign_in.time.monotonic", lambda: then)
        assert not signing.use(keys[1])
    with monkeypatch.context() as later:
        now = time.time()
        later.setattr("vhostcomm.control.sign_in.time.time", lambda: now + COOKIE_LIFE + 1)
        assert not signing.accepts([cookie])
    assert not SignIn(8471, b"s" * 32).accepts([cookie.replace(b"8470", b"8471")])


def test_the_verb_prints_a_link(served: Web) -> None:
    done = run_vhostcomm("web", "--control", served.control)
    assert done.returncode == 0, done.stderr
    link = re.fullmatch(rf"http://{served.host}(/\?key=[\w-]+)\n", done.stdout)
    assert link
    assert served.ask(link[1], **TYPED).status == 303


def test_web_page_is_off_by_default_and_the_verb_reports_it(served: Web, tmp_path: Path) -> None:
    control = tmp_path / "control"
    with Serving("--sock", tmp_path / "nas", "--control", control) as daemon:
        done = run_vhostcomm("web", "--control", control)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no web page: this daemon serves none; start it with --web 127.0.0.1:8470" in done.stderr
        done = run_vhostcomm("web", "--control", control, "--control", served.control, "--control", tmp_path / "none")
        assert (done.returncode, done.stdout.count("?key=")) == (0, 1)
        assert "no web page" not in done.stderr
        assert f"{tmp_path}/none: No such file or directory" in done.stderr
    assert not [line for line in daemon.log if line["event"].startswith("web ")]


@pytest.mark.slow
def test_a_link_is_printed_only_on_a_terminal(tmp_path: Path) -> None:
    with web(tmp_path) as made:
        assert made.daemon.event("web page listening")["url"] == f"http://{made.host}/"
    assert "key=" not in "".join(made.daemon.raw)
    with held_port() as port:
        words = ["serve", "--sock", tmp_path / "nas", "--control", "none", "--web", f"127.0.0.1:{port}"]
        terminal, end = pty.openpty()
        with started([*VHOSTCOMM, *words], env=ENVIRONMENT | {"NO_COLOR": "1"}, stdout=end):
            os.close(end)
            link = shown(terminal, rf"link='http://127\.0\.0\.1:{port}(/\?key=[\w-]+)'")[1]
            assert Web(port, tmp_path, made.daemon).ask(link, **TYPED).status == 303
        os.close(terminal)


def shown(terminal: int, what: str) -> re.Match[str]:
    """Wait for a text on a terminal."""
    text = ""
    while not (found := re.search(what, text)):
        ready, _, _ = select.select([terminal], [], [], TIMEOUT)
        assert ready, text
        text += os.read(terminal, 4096).decode()
    return found


def test_an_address_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_vhostcomm("serve", "--sock", tmp_path / "nas", "--control", "none", "--web", f"127.0.0.1:{port}")
    assert (done.returncode, "the web page: tcp:127.0.0.1" in done.stderr) == (1, True), done.stderr
    for wrong in ("8470", "/run/web", "127.0.0.1:99999"):
        done = run_vhostcomm("serve", "--sock", tmp_path / "nas", "--web", wrong)
        assert (done.returncode, "--web" in done.stderr) == (2, True), done.stderr


def test_rejections_are_logged_once_a_minute_without_secrets(tmp_path: Path) -> None:
    with web(tmp_path) as made:
        for _ in range(5):
            made.ask("/?key=wrong-key", **TYPED)
            made.ask("/", Host="page.example")
        made.daemon.event("web link rejected", times=1)
        made.daemon.event("web request rejected", times=1)
    counts = [(line["event"], line["times"]) for line in made.daemon.log if "rejected" in line["event"]]
    assert sorted(counts) == sorted([(f"web {what} rejected", n) for what in ("link", "request") for n in (1, 4)])
    assert "wrong-key" not in "".join(made.daemon.raw)

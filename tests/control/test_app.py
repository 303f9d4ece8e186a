"""The control surface of a real daemon: what it reports and does, and how it can fail."""

from __future__ import annotations

import json
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.control.controlled import INFORMATION, Answering, Answers, answering, client, controlled, post
from tests.serving import ENVIRONMENT, Serving, fake_guest, held_port, run_vhostcomm, until

IP, UPTIME, POWEROFF, REBOOT, INFO, FREEZE, THAW = 2, 5, 6, 8, 10, 14, 15


@pytest.mark.slow
def test_health_and_calls_follow_the_state_of_a_guest(tmp_path: Path) -> None:
    with controlled(tmp_path) as (daemon, http):
        assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o600
        health = http.get("/healthz")
        assert health.status_code == 503
        assert health.json()["unhealthy"] == {"nas": f"QEMU is not connected to {tmp_path / 'nas'}"}
        assert post(http, "/guests/nas/call", command="get_ip")[0] == 409
        with fake_guest(tmp_path / "nas") as guest:
            daemon.event("guest connected")
            health = http.get("/healthz")
            assert health.status_code == 503
            assert "no sign of life yet" in health.json()["unhealthy"]["nas"]
            status, refused = post(http, "/guests/nas/call", command="get_ip")
            assert (status, refused["error"]["what"]) == (409, "not ready")
            Answering(guest, {INFO: b'{"data":{}}\0'})
            health = http.get("/healthz")
            assert health.status_code == 503
            assert health.json()["unhealthy"] == {"nas": "the guest is up, but has no address yet"}
            full = http.get("/guests/nas").json()
            assert full["state"] == "ready"
            assert full["identity"]["guest"]["serial"] == full["serial"] == "0" * 13
            assert full["requests"] == {"guest_serial": 1}
            assert full["answered"]["guest_serial"]["answer"] == "0" * 13
            assert full["calls"] == [
                {"command": "get_ip", "outcome": "not connected", "count": 1},
                {"command": "get_information", "outcome": "timed out", "count": 1},
                {"command": "get_ip", "outcome": "not ready", "count": 1},
                {"command": "get_information", "outcome": "answered", "count": 1},
            ]
            guest.sock.shutdown(2)


@pytest.mark.slow
def test_health_is_of_now(tmp_path: Path) -> None:
    """The daemon asks the guest if its information is old or has no address."""
    answers: Answers = {}
    with controlled(tmp_path) as (daemon, http), answering(tmp_path / "nas", answers):
        daemon.event("guest ready")

        def unhealthy(what: str) -> bool:
            health = http.get("/healthz")
            assert health.status_code == (503 if what else 200)
            return what in health.json()["unhealthy"].get("nas", "")

        assert unhealthy("does not answer the question for its address")
        answers[INFO] = b"no json at all\0"
        until(lambda: unhealthy("the guest's information can't be read"))
        assert "unreadable" in {each["outcome"] for each in http.get("/guests/nas").json()["calls"]}
        answers[INFO] = b'{"data":{}}\0'
        until(lambda: unhealthy("has no address yet"))
        answers[INFO] = INFORMATION
        until(lambda: http.get("/healthz").status_code == 200)
        assert http.get("/healthz").json() == {
            "healthy": True,
            "guests": 1,
            "unhealthy": {},
            "not_reloaded": None,
            "warnings": [],
        }


@pytest.mark.slow
def test_a_health_check_continues_without_its_client(tmp_path: Path) -> None:
    """The question to the guest continues, and the next request has its answer. Concurrent requests share one question."""
    with controlled(tmp_path), fake_guest(tmp_path / "nas") as guest, client(tmp_path / "control") as http:
        guest.serial()
        with pytest.raises(httpx.ReadTimeout):
            http.get("/healthz", timeout=0.5)
        with ThreadPoolExecutor(3) as pool:
            assert {each.status_code for each in pool.map(http.get, ["/healthz"] * 3)} == {503}
        assert http.get("/healthz").status_code == 503
        assert guest.next_request().command == INFO


def test_every_outcome_of_a_call(tmp_path: Path) -> None:
    with (
        controlled(tmp_path) as (_, http),
        answering(tmp_path / "nas", {IP: b"10.0.2.15\0", UPTIME: b"", INFO: INFORMATION, 77: lambda: None}) as guest,
    ):
        status, found = post(http, "/guests/nas/call", command="get-ip")
        assert (status, found["answer"]["text"]) == (200, "10.0.2.15")
        assert found["command"] == {"number": 2, "name": "get_ip", "known": "inferred"}
        status, found = post(http, "/guests/nas/call", command=5)
        assert (status, found["answer"]) == (200, {"bytes": 0, "text": "", "json": None, "problem": None})
        status, found = post(http, "/guests/nas/call", command=10)
        assert found["answer"]["json"] == json.loads(INFORMATION[:-1])
        information = http.get("/guests/nas").json()["information"]
        assert (information["address"], information["http_port"], information["link"]) == (
            "10.0.2.15",
            5000,
            "http://10.0.2.15:5000/",
        )
        status, found = post(http, "/guests/nas/call", command=11, timeout=0.1)
        assert (status, found["error"]["what"]) == (504, "timed out")
        status, found = post(http, "/guests/nas/call", command=77)
        assert (status, found["error"]["what"]) == (502, "connection lost")
        assert [int(each) for each in guest.asked] == [2, 5, 10, 11, 77]


def test_command_0_can_be_called(tmp_path: Path) -> None:
    with controlled(tmp_path) as (_, http), answering(tmp_path / "nas", {0: b""}):
        for command in "test", "0", 0:
            assert post(http, "/guests/nas/call", command=command)[1]["command"]["name"] == "test"


@pytest.mark.parametrize(
    ("answer", "text", "problem"),
    [
        (b"no json\0", "no json", "not JSON"),
        (b"\x1b[2Jclear\x9b\n\0", "\\x1b[2Jclear\\x9b\\n", "not UTF-8"),
        (b"\xff\xfe\0", "\\xff\\xfe", "not UTF-8"),
        (b"[" * 2000 + b"]" * 2000 + b"\0", "[[", "nested too deep"),
        (b'{"a": 1e999}\0', '{"a"', "not a JSON number"),
        (b'{"a": "\\ud800"}\0', '{"a"', "UTF-16"),
    ],
    ids=["text", "control", "bytes", "deep", "infinite", "half"],
)
@pytest.mark.slow
def test_odd_answers_are_reported(tmp_path: Path, answer: bytes, text: str, problem: str) -> None:
    with controlled(tmp_path) as (_, http), answering(tmp_path / "nas", {INFO: answer}):
        status, found = post(http, "/guests/nas/call", command=10)
        assert status == 200
        assert found["answer"]["text"].startswith(text)
        assert found["answer"]["text"].isprintable()
        assert problem in found["answer"]["problem"]
        full = http.get("/guests/nas")
        assert full.json()["information"]["address"] is None


def test_control_characters_are_escaped(tmp_path: Path) -> None:
    with controlled(tmp_path) as (_, http), answering(tmp_path / "nas", {IP: "a\x1b[2J\u202e\0".encode()}):
        _, found = post(http, "/guests/nas/call", command=2)
        assert found["answer"]["text"] == "a\\x1b[2J\\u202e"
        assert "control characters" in found["answer"]["problem"]


def test_events_follow_a_guest_to_its_stop(tmp_path: Path) -> None:
    with controlled(tmp_path) as (_, http), http.stream("GET", "/events") as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith(": what happens")
        with answering(tmp_path / "nas", {POWEROFF: lambda: None}), client(tmp_path / "control") as other:
            post(other, "/guests/nas/shutdown", wait=20)
        found = []
        for line in lines:
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
                if found[-1]["event"] == "gone":
                    break
        assert [each["event"] for each in found] == ["connected", "ready", "stopping", "gone"]
        assert found[-1]["why"] == "QEMU closed the connection"
        assert found[-1]["stop"]["how"] == "power-off"


def test_metrics_count_frames_calls_and_connections(tmp_path: Path) -> None:
    with controlled(tmp_path) as (_, http), fake_guest(tmp_path / "nas") as end:
        end.sock.sendall(bytes(100))
        Answering(end, {IP: b"1\0", INFO: INFORMATION})
        post(http, "/guests/nas/call", command=2)
        answer = http.get("/metrics")
        end.sock.shutdown(2)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    guest = ("guest", "nas")
    # Counted while the guest is still connected.
    assert samples["vhostcomm_guest_refused_frames_total", guest] == 1
    assert samples["vhostcomm_guest_skipped_bytes_total", guest] == 100
    assert samples["vhostcomm_guests",] == 1
    assert samples["vhostcomm_guest_state", guest, ("state", "ready")] == 1
    assert samples["vhostcomm_guest_state", guest, ("state", "absent")] == 0
    assert samples["vhostcomm_guest_requests_total", ("command", "guest_serial"), guest] == 1
    assert samples["vhostcomm_guest_calls_total", ("command", "get_ip"), guest, ("outcome", "answered")] == 1
    assert samples["vhostcomm_guest_connections_total", guest] == 1


def test_reload_and_configuration(tmp_path: Path) -> None:
    config = tmp_path / "vhostcomm.toml"
    config.write_text(f'[guests.one]\nsock = "{tmp_path}/one"\n[serve]\ncontrol_token = "{"t" * 20}"\n')
    with Serving("--config", config, "--control", tmp_path / "control") as daemon, client(tmp_path / "control") as http:
        shown = http.get("/config").text
        assert "tttt" not in shown
        assert http.get("/config").json()["serve"]["control_token"] == {
            "value": "(hidden)",
            "source": f"{config}: serve.control_token",
        }
        config.write_text(f'[guests.one]\nsock = "{tmp_path}/one"\n[guests.two]\nsock = "{tmp_path}/two"\n')
        assert post(http, "/reload") == (
            200,
            {"reloaded": True, "guests": ["one", "two"], "needs_restart": ["control_token"]},
        )
        config.write_text("[guests")
        status, refused = post(http, "/reload")
        assert (status, refused["error"]["what"]) == (409, "not reloaded")
        assert "not TOML" in refused["error"]["why"]
        assert "reasons" not in refused["error"]
        config.write_text(f"[host]\nserial = 'x'\nmac = '{'y' * 300}'\n[guests.one]\nsocks = 1\n")
        status, refused = post(http, "/reload")
        assert (status, refused["error"]["why"]) == (409, "3 mistakes in the configuration")
        places = ["host.serial is 'x'", f"host.mac is '{'y' * 80}'…", "guests.one.socks"]
        assert [each.split(": ")[1] for each in refused["error"]["reasons"]] == places
        for _ in range(2):
            line = daemon.event("reload rejected, the old configuration stays")
        assert line["why"].startswith("3 mistakes in the configuration: ")
        assert [each in line["why"] for each in places] == [True] * 3
        assert len(line["why"]) > 300
        assert (
            http.get("/healthz")
            .json()["not_reloaded"]
            .startswith(f"{refused['error']['why']}: {config}: host.serial is 'x'")
        )


@pytest.mark.slow
def test_a_reload_that_cannot_be_served_fails(tmp_path: Path) -> None:
    config = tmp_path / "vhostcomm.toml"
    one = f'[guests.one]\nsock = "{tmp_path}/one"\n'
    config.write_text(one)
    with Serving("--config", config, "--control", tmp_path / "control") as daemon, client(tmp_path / "control") as http:
        (tmp_path / "two").mkdir()
        (tmp_path / "three").write_text("a file")
        config.write_text(f'{one}[guests.two]\nsock = "{tmp_path}/two"\n[guests.three]\nsock = "{tmp_path}/three"\n')
        status, refused = post(http, "/reload")
        assert (status, refused["error"]["what"]) == (409, "not reloaded")
        assert refused["error"]["why"] == "2 reasons why guests can't be served"
        logged = daemon.event("reload rejected, the old configuration stays")["why"]
        expected = (f"{tmp_path}/two: a directory is in the place", f"{tmp_path}/three: a file is in the place")
        for reason, why in zip(refused["error"]["reasons"], expected, strict=True):
            assert reason.startswith(why)
            assert why in logged
            assert why in http.get("/healthz").json()["not_reloaded"]
        assert http.get("/healthz").status_code == 503
        assert list(http.get("/config").json()) == ["host", "guests.one", "serve", "watch", "watch_sources"]
        (tmp_path / "two").rmdir()
        (tmp_path / "three").unlink()
        daemon.event("reloaded")
        assert http.get("/healthz").json()["not_reloaded"] is None
        config.write_text("")
        assert post(http, "/reload")[0] == 409
        assert list(http.get("/config").json()) == [
            "host",
            "guests.one",
            "guests.two",
            "guests.three",
            "serve",
            "watch",
            "watch_sources",
        ]


def test_clients_that_never_read_or_finish_do_not_disturb_others(tmp_path: Path) -> None:
    with (
        controlled(tmp_path, "--sock", tmp_path / "deaf") as (daemon, http),
        answering(tmp_path / "nas", {IP: b"10.0.2.15\0"}),
        fake_guest(tmp_path / "deaf") as deaf,
    ):
        deaf.serial()
        rude = []
        for sent in [
            b"",
            b"GET /gue",
            b"POST /guests/nas/call HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{",
        ] * 5:
            rude.append(_connection(tmp_path / "control"))
            rude[-1].sendall(sent)
        unread = _connection(tmp_path / "control")
        unread.setblocking(False)
        try:
            while True:
                unread.send(b"GET /config HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        except BlockingIOError:
            pass
        with ThreadPoolExecutor(2) as threads:
            # A guest that never reads, nor answers, while fifty calls run elsewhere.
            stuck = [threads.submit(_post_alone, tmp_path, "/guests/deaf/call", 600) for _ in range(2)]
            for _ in range(50):
                assert post(http, "/guests/nas/call", command=2)[0] == 200
            assert not any(each.done() for each in stuck)
            assert daemon.stop() == 0
            assert [each.result() for each in stuck] == [502, 502]
        for each in [*rude, unread]:
            each.close()


def _connection(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(path))
    return made


def _post_alone(folder: Path, path: str, timeout: float) -> int:
    with client(folder / "control") as http:
        return post(http, path, command=2, timeout=timeout)[0]


def test_tcp_needs_its_token(tmp_path: Path) -> None:
    refused = run_vhostcomm("serve", "--sock", tmp_path / "nas", "--control", "tcp:127.0.0.1:5001")
    assert refused.returncode == 2
    assert "VHOSTCOMM_CONTROL_TOKEN" in refused.stderr
    token = "a-long-random-secret"
    environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL_TOKEN": token}
    with (
        held_port() as port,
        Serving("--sock", tmp_path / "nas", "--control", where := f"tcp:127.0.0.1:{port}", env=environment),
    ):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
            for headers in {}, {"Authorization": "Bearer wrong"}, {"Authorization": token}:
                answer = http.get("/guests", headers=headers)
                assert (answer.status_code, answer.json()["error"]["what"]) == (401, "not allowed")
            assert http.get("/guests", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        listed = run_vhostcomm("guests", "--control", where, env=environment)
        assert listed.returncode == 0
        assert "nas" in listed.stdout


def test_control_surface_has_a_default_path_and_can_be_off(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(tmp_path / "run")}
    with Serving("--sock", tmp_path / "one", env=environment) as daemon:
        daemon.event("control surface listening", sock=f"{tmp_path}/run/control.sock")
        with Serving("--sock", tmp_path / "two", env=environment) as second:
            second.event("control surface listening", sock=f"{tmp_path}/run/control/two.sock")
        with client(tmp_path / "run/control.sock") as http:
            assert http.get("/guests").json()["guests"][0]["name"] == "one"
        taken = run_vhostcomm("serve", "--sock", tmp_path / "two", "--control", tmp_path / "run/control.sock")
        assert taken.returncode == 1
        assert "the control surface" in taken.stderr
        assert not (tmp_path / "two").exists()
    with Serving("--sock", tmp_path / "one", "--control", "none", env=environment) as daemon:
        assert not [*(tmp_path / "run").rglob("*.sock")]
    assert not [line for line in daemon.log if "control" in line["event"]]


@pytest.mark.slow
def test_http_is_loaded_with_the_first_request(tmp_path: Path) -> None:
    with controlled(tmp_path, fresh=True) as (daemon, http):
        with fake_guest(tmp_path / "nas") as guest:
            guest.serial()
        before = _resident(daemon.process.pid)
        assert http.get("/guests").status_code == 200
        assert _resident(daemon.process.pid) > before + 2000


def _resident(pid: int) -> int:
    """Resident memory in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError(pid)

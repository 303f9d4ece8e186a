"""Troubles of a cluster are visible wherever an operator looks, and change no guest's health."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.etcd import running
from tests.cluster.hosts import HOSTS_TIMEOUT, NAS, Host
from tests.control.controlled import INFORMATION, answering, client
from tests.serving import run_vhostcomm, until
from tests.systemd.notified import notify_socket
from vchannel import GuestCommand
from vhostcomm.cluster.records import Trouble

pytestmark = [pytest.mark.slow, pytest.mark.needs("etcd")]


def test_troubles_are_in_health_metrics_status_and_list(tmp_path: Path) -> None:
    with (
        running(tmp_path, 1) as etcd,
        notify_socket() as manager,
        Host(tmp_path, "host1", etcd.address, file=NAS, NOTIFY_SOCKET=manager.environment["NOTIFY_SOCKET"]) as host,
        answering(host.sock, {GuestCommand.GET_INFORMATION: INFORMATION}),
        client(host.control) as http,
    ):
        host.event("guest ready")

        def seen(trouble: Trouble, *causes: str) -> Callable[[], bool]:
            """A condition: health is green, and its warnings and the metric have the trouble with exactly these causes."""

            def look() -> bool:
                health = http.get("/healthz")
                green = (health.status_code, health.json()["healthy"]) == (200, True)
                warnings = [each for each in health.json()["warnings"] if each.startswith(f"{trouble.value} since 20")]
                metrics = http.get("/metrics").text.splitlines()
                metric = f'vhostcomm_cluster_trouble{{kind="{trouble.name.lower()}"}} {len(causes)}.0'
                same = len(warnings) == len(causes) and all(map(str.endswith, warnings, causes))
                return green and metric in metrics and same

            return look

        def hears_no_trouble() -> None:
            while manager.next() != "STATUS=1 guest served: 1 ready":
                pass

        until(seen(Trouble.UNREACHED), "the first tree", HOSTS_TIMEOUT)
        etcd.put("guests/nas", b"5")
        why = 'etcd: guests/nas: it is not a JSON object; for example: {"serial": "1234ABC567890"}'
        until(seen(Trouble.REJECTED, why), "the rejected tree", HOSTS_TIMEOUT)
        until(lambda: manager.next().startswith(f"STATUS=1 guest served: 1 ready; {Trouble.REJECTED.value} since 20"))
        listed = run_vhostcomm("guests", "--control", host.control)
        assert listed.returncode == 0
        assert listed.stderr.startswith(f"vhostcomm: {Trouble.REJECTED.value} since 20")
        etcd.put("guests/nas", {})
        until(seen(Trouble.REJECTED), "the accepted tree", HOSTS_TIMEOUT)
        hears_no_trouble()
        assert run_vhostcomm("guests", "--control", host.control).stderr == ""
        etcd.members[0].kill()
        refused = f"http://127.0.0.1:{etcd.members[0].port}: Connection refused"
        until(seen(Trouble.UNREACHED, refused), "the end of etcd", HOSTS_TIMEOUT)
        manager.hears(f"; {Trouble.UNREACHED.value} since 20")
        etcd.heal()
        until(seen(Trouble.UNREACHED), "the return of etcd", HOSTS_TIMEOUT)
        hears_no_trouble()


def test_a_tree_that_cannot_be_kept_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        running(tmp_path, 1) as etcd,
        Host(tmp_path, "host1", etcd.address, file=NAS, STATE_DIRECTORY=str(tmp_path / "file")) as host,
        client(host.control) as http,
    ):
        etcd.put("guests/nas", {})
        host.event("tree not kept")
        [warning] = http.get("/healthz").json()["warnings"]
        assert warning.startswith(f"{Trouble.UNKEPT.value} since 20")
        (tmp_path / "file").unlink()
        etcd.put("guests/attic", {})
        until(lambda: http.get("/healthz").json()["warnings"] == [], "the kept tree", HOSTS_TIMEOUT)

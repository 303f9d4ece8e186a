"""Prometheus scrapes a daemon with the jobs of the page on control."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from tests.control.authority import Authority, flags
from tests.control.controlled import INFORMATION, answering
from tests.hosts.folders import ROOT
from tests.needs import need
from tests.serving import ENVIRONMENT, Serving, held_port, started, until

HERE = "127.0.0.1"
TOKEN = "a-long-random-secret"
GET_INFORMATION = 10

Daemon = Callable[[Path, int], AbstractContextManager[dict[str, str]]]


@contextmanager
def daemon_with_token(folder: Path, port: int) -> Iterator[dict[str, str]]:
    """Start a daemon; yields what to replace in its job."""
    token = folder / "token"
    token.write_text(TOKEN)
    where, environment = f"{HERE}:{port}", ENVIRONMENT | {"VHOSTCOMM_CONTROL_TOKEN": TOKEN}
    with Serving("--sock", folder / "nas", "--control", f"tcp:{where}", env=environment):
        yield {"127.0.0.1:9120": where, "/etc/prometheus/vhostcomm.token": str(token)}


@contextmanager
def daemon_with_tls(folder: Path, port: int) -> Iterator[dict[str, str]]:
    authority, where = Authority.new(folder / "tls"), f"{HERE}:{port}"
    authority.host("prometheus", "prometheus.example")
    files = flags(authority.host("host1", HERE))
    with Serving("--sock", folder / "nas", "--control", f"tls:{where}", *files):
        yield {"host1:8471": where, "/etc/prometheus/tls": str(authority.folder)}


@pytest.mark.parametrize(("name", "daemon"), [("vhostcomm", daemon_with_token), ("vhostcomm-hosts", daemon_with_tls)])
def test_prometheus_scrapes_with_the_job_of_the_page(tmp_path: Path, name: str, daemon: Daemon) -> None:
    need("prometheus")
    config = tmp_path / "prometheus.yml"
    jobs = re.findall(r"```yaml\n(scrape_configs:.*?)```", (ROOT / "docs/control.md").read_text(), re.DOTALL)
    (job,) = (each for each in jobs if f"job_name: {name}\n" in each)
    with held_port() as port, held_port() as own, daemon(tmp_path, port) as replaced:
        for old, new in replaced.items():
            assert old in job
            job = job.replace(old, new)
        config.write_text(f"global: {{scrape_interval: 1s}}\n{job}")
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
        command += [f"--web.listen-address={HERE}:{own}"]
        with (
            answering(tmp_path / "nas", {GET_INFORMATION: INFORMATION}),
            (tmp_path / "log").open("wb") as log,
            started(command, env=dict(os.environ), stdout=log, stderr=subprocess.STDOUT),
            httpx.Client(base_url=f"http://{HERE}:{own}") as http,
        ):

            def healthy() -> bool:
                try:
                    found = http.get("/api/v1/query", params={"query": "vhostcomm_guest_healthy"})
                except httpx.TransportError:  # it starts
                    return False
                if found.status_code == HTTPStatus.SERVICE_UNAVAILABLE:  # it reads its data
                    return False
                result = found.json()["data"]["result"]
                return [(each["metric"]["guest"], each["value"][1]) for each in result] == [("nas", "1")]

            until(healthy, f"the guest's health; see {tmp_path / 'log'}", 60)

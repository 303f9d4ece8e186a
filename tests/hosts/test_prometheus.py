"""Prometheus scrapes a daemon with the job of the page on control."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import httpx

from tests.control.controlled import INFORMATION, answering
from tests.hosts.folders import ROOT
from tests.needs import need
from tests.serving import ENVIRONMENT, Serving, held_port, started, until

TOKEN = "a-long-random-secret"
GET_INFORMATION = 10


def test_prometheus_scrapes_with_the_job_of_the_page(tmp_path: Path) -> None:
    need("prometheus")
    token, config = tmp_path / "token", tmp_path / "prometheus.yml"
    token.write_text(TOKEN)
    (job,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", (ROOT / "docs/control.md").read_text(), re.DOTALL)
    environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL_TOKEN": TOKEN}
    with held_port() as port, held_port() as own:
        where = f"127.0.0.1:{port}"
        job = job.replace("127.0.0.1:9120", where).replace("/etc/prometheus/vhostcomm.token", str(token))
        assert where in job
        assert str(token) in job
        config.write_text(f"global: {{scrape_interval: 1s}}\n{job}")
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{own}"]
        with (
            Serving("--sock", tmp_path / "nas", "--control", f"tcp:{where}", env=environment),
            answering(tmp_path / "nas", {GET_INFORMATION: INFORMATION}),
            (tmp_path / "log").open("wb") as log,
            started(command, env=dict(os.environ), stdout=log, stderr=subprocess.STDOUT),
            httpx.Client(base_url=f"http://127.0.0.1:{own}") as http,
        ):

            def healthy() -> bool:
                try:
                    found = http.get("/api/v1/query", params={"query": "vhostcomm_guest_healthy"}).json()
                except httpx.TransportError:  # it starts
                    return False
                return [(each["metric"]["guest"], each["value"][1]) for each in found["data"]["result"]] == [
                    ("nas", "1")
                ]

            until(healthy, f"the guest's health; see {tmp_path / 'log'}", 60)

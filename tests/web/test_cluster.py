"""The page of a cluster's host shows the guests of other hosts: two real daemons, and a real etcd."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.etcd import running
from tests.cluster.hosts import NAS, Host, asking
from tests.control.controlled import client
from tests.serving import held_port, until
from tests.web.browser import Page
from tests.web.signed_in import Web

pytestmark = [pytest.mark.slow, pytest.mark.needs("etcd", "chromium")]


def test_page_lists_the_guests_of_other_hosts(tmp_path: Path, page: Page) -> None:
    with running(tmp_path, 1) as etcd, held_port() as port:
        etcd.put("guests/nas", {"serial": "1234ABC567890"})
        web = "--web", f"127.0.0.1:{port}"
        with (
            Host(tmp_path, "host1", etcd.address, *web, file=NAS) as first,
            client(first.control) as http,
        ):

            def listed() -> list[tuple[str, str, str]]:
                cluster = http.get("/guests").json()["cluster"]
                assert cluster["host"] == "host1"
                return [(each["name"], each["host"], each["state"]) for each in cluster["elsewhere"]]

            page.open(Web(port, first.control, first).link())
            page.until_shown("On other hosts")
            page.until_shown("No guest.")
            with Host(tmp_path, "host2", etcd.address, file=NAS) as second, asking(second.sock):
                until(lambda: listed() == [("nas", "host2", "ready")], "the record of host2")
                page.run("dispatchEvent(new Event('hashchange'))")  # else it asks again after 10 s
                page.until("/nas\\s+host2\\s+ready/.test(document.querySelector('#elsewhere').innerText)")
                assert page.run("document.querySelectorAll('#elsewhere a, #elsewhere button').length") == 0
            until(lambda: not listed(), "the end of host2")
            page.run("dispatchEvent(new Event('hashchange'))")
            page.until_shown("No guest.")

"""A guest in a real QEMU, stopped by a button of the web page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.launched import Images, Launched
from tests.serving import held_port, run_vhostcomm
from tests.web.browser import Page, chromium


@pytest.mark.any_qemu
@pytest.mark.needs("chromium")
def test_the_button_stops_a_guest(tmp_path: Path, images: Images) -> None:
    with held_port() as port:
        flags = [
            *images.direct(),
            "--guest",
            "nas",
            "--control",
            str(tmp_path / "control"),
            "--web",
            f"127.0.0.1:{port}",
        ]
        with Launched(tmp_path, *flags) as run, chromium(tmp_path / "chromium") as browser:
            run.ready()
            page = Page(browser)
            page.open(run_vhostcomm("web", "--control", tmp_path / "control").stdout.strip())
            page.until_shown("nas")
            page.run("location.hash = 'guest=nas'")
            page.until_shown("(inferred)", "#about")
            page.click("Shut down")
            page.run("document.querySelector('#confirm-yes').click()")
            page.until_shown("Shut down: gone after", "#outcome")
            run.console.says("reboot: Power down")
            assert "web page: peer 127.0.0.1:" in run.event("stop requested")["by"]
            assert "own power-off" in run.event("QEMU ended")["why"]
            page.until_shown("The daemon does not answer since", "#connection")
            assert run.ends() == 0
    run.console.kept_to_the_protocol()

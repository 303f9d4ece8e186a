"""The pictures in the documentation, made from a real daemon. ``make pictures`` replaces the committed ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from tests.control.controlled import INFORMATION, Answers, answering
from tests.docs.pages import ROOT
from tests.serving import fake_guest
from tests.web.browser import Page
from tests.web.signed_in import web
from vchannel import GuestCommand, HostCommand

PICTURES: Final = ("web-guests.webp", "web-guest.webp")

SIZE_MAX: Final = 150_000
"""Bytes of all pictures: a clone has each of their versions."""

QUESTIONS: Final = (
    HostCommand.UPDATE_DEADLINE, HostCommand.HOST_SERIAL, HostCommand.HOST_MODEL, HostCommand.HOST_MAC,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_each_picture_can_be_made(page: Page, short_path: Path) -> None:
    config = short_path / "c.toml"
    config.write_text(
        "".join(
            f'[guests.{name}]\nsock = "{short_path}/{name}"\nserial = "{number}234ABC567890"\n'
            for number, name in enumerate(("nas", "backup", "office"), 1)
        )
    )
    made = {}
    answers: Answers = {int(GuestCommand.GET_INFORMATION): INFORMATION, int(GuestCommand.GET_UPTIME): b"4711\0"}
    page.size(1000, 640)
    with (
        web(short_path, "--config", config, guest=False) as served,
        answering(short_path / "nas", answers) as nas,
        fake_guest(short_path / "office"),
    ):
        page.open(served.link())
        page.until_shown("10.0.2.15:5000", "#guests")
        made["web-guests.webp"] = page.picture()
        page.run("location.hash = 'guest=nas'")
        page.until_shown("4711 (inferred)", "#about")
        for question in QUESTIONS:
            nas.guest.send(question)
        page.until_shown("answers 14 host_mac", "#timeline")
        page.until_shown("host_mac", "#served")
        page.size(1000, 1100)
        made["web-guest.webp"] = page.picture()
    for name in PICTURES:
        assert made[name].startswith(b"RIFF")
        assert made[name][8:12] == b"WEBP"
        if folder := os.environ.get("PICTURES"):
            Path(folder, name).write_bytes(made[name])


def test_the_pictures_are_small_and_shown() -> None:
    folder = ROOT / "docs/pictures"
    assert sorted(each.name for each in folder.iterdir()) == sorted(PICTURES)
    assert sum(each.stat().st_size for each in folder.iterdir()) < SIZE_MAX
    text = (ROOT / "docs/web.md").read_text()
    assert all(f"](pictures/{name})" in text for name in PICTURES)

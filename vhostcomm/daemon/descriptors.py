"""Raise the limit of open files."""

from __future__ import annotations

import resource
from typing import Final

from vhostcomm.config.models import Config
from vhostcomm.log.logs import Log

DESCRIPTORS_PER_GUEST: Final = 2
"""A listening socket and a connection."""

DESCRIPTORS_SPARE: Final = 64
"""Further descriptors for the event loop, logs, recordings and the configuration."""

DESCRIPTORS_WATCHING: Final = 4096
"""Limit for watched directories, where any number of guests may appear."""


def raise_descriptor_limit(config: Config, log: Log) -> None:
    """Raise the soft limit of open files to what the guests need, as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = DESCRIPTORS_SPARE + (DESCRIPTORS_PER_GUEST + bool(config.service.record)) * len(config.guests)
    if config.watch:
        need = max(need, DESCRIPTORS_WATCHING)
    if need <= soft or soft == resource.RLIM_INFINITY:
        return
    reached = need if hard == resource.RLIM_INFINITY else min(need, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (reached, hard))
    if reached < need:
        log.warning(
            "too few file descriptors for all guests; some may have to wait",
            limit=reached,
            needed=need,
            remedy="raise LimitNOFILE= in the unit, or `ulimit -Hn`",
        )

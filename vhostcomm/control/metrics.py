"""Metrics in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from vhostcomm.channel.guest import Guest
from vhostcomm.cluster.records import Trouble, View
from vhostcomm.control import serialize
from vhostcomm.control.daemon_api import DaemonApi
from vhostcomm.guest.model import State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS = {
    "connections": "Connections of QEMU.",
    "boots": "Starts that the guest has reported.",
    "refused_frames": "Frames that broke the protocol.",
    "skipped_bytes": "Bytes that were no frame.",
    "dropped_answers": "Answers that the guest did not read in time.",
    "throttled": "Times that the guest was read more slowly, for sending too fast.",
}


class _Collector:
    def __init__(self, daemon: DaemonApi) -> None:
        self._daemon = daemon

    def collect(self) -> Iterator[Metric]:
        guests = self._daemon.guests
        yield GaugeMetricFamily("vhostcomm_guests", "Guests that are served.", value=len(guests))
        yield _states(guests)
        if self._daemon.cluster:
            yield _troubles(self._daemon.cluster)
        well = GaugeMetricFamily("vhostcomm_guest_healthy", "1 for a guest that is well.", labels=["guest"])
        last = GaugeMetricFamily(
            "vhostcomm_guest_last_frame_timestamp_seconds",
            "When the guest last sent a request or an answer, in this boot.",
            labels=["guest"],
        )
        frozen = GaugeMetricFamily(
            "vhostcomm_guest_frozen",
            "1 for a guest that a freeze was sent, and no thaw answered since.",
            labels=["guest"],
        )
        requests = CounterMetricFamily("vhostcomm_guest_requests", "Requests by command.", labels=["guest", "command"])
        calls = CounterMetricFamily(
            "vhostcomm_guest_calls", "What the guest was asked, by outcome.", labels=["guest", "command", "outcome"]
        )
        for name, guest in guests.items():
            well.add_metric([name], serialize.problem(guest) is None)
            frozen.add_metric([name], guest.debt is not None)
            if guest.last_frame is not None:
                last.add_metric([name], guest.last_frame)
            for number, count in guest.counts.items():
                requests.add_metric([name, serialize.command_name(number)], count)
            for (command, outcome), count in guest.calls.items():
                calls.add_metric([name, command, outcome], count)
        yield from (well, last, frozen, requests, calls)
        for field, meaning in _COUNTERS.items():
            family = CounterMetricFamily(f"vhostcomm_guest_{field}", meaning, labels=["guest"])
            for name, guest in guests.items():
                family.add_metric([name], getattr(guest, field))
            yield family


def _states(guests: dict[str, Guest]) -> Metric:
    family = GaugeMetricFamily("vhostcomm_guest_state", "1 for the state the guest is in.", labels=["guest", "state"])
    for name, guest in guests.items():
        for state in State:
            family.add_metric([name, state.value], guest.state is state)
    return family


def _troubles(view: View) -> Metric:
    family = GaugeMetricFamily(
        "vhostcomm_cluster_trouble", "1 for what is wrong with the cluster; guests are answered.", labels=["kind"]
    )
    for each in Trouble:
        family.add_metric([each.name.lower()], each in view.troubles)
    return family


def metrics(daemon: DaemonApi) -> bytes:
    """Return all metrics, as of now."""
    registry = CollectorRegistry()
    registry.register(_Collector(daemon))
    return generate_latest(registry)

"""The part of a cluster's tree that is configuration: what all hosts have in common. Pure.

``cluster`` has the sections ``host`` and ``guest`` of the configuration file, as JSON. ``guests/NAME`` has the identity of a
guest, with the keys of ``[guests.NAME]``. Sockets, machines and secrets are each host's own, and rejected here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from vhostcomm.cluster.records import json_object
from vhostcomm.config import values
from vhostcomm.config.collecting import Mistakes
from vhostcomm.config.files import Listed, Merged
from vhostcomm.config.reading import section_of
from vhostcomm.errors import ConfigError
from vhostcomm.text import escape

CLUSTER: Final = "cluster"
GUESTS: Final = "guests/"

GUESTS_MAX: Final = 10_000
"""Maximum guests of a tree; with more, a host could not bind the sockets."""

SIZE_MAX: Final = 12 << 20
"""Maximum bytes of all values; 10,000 guests have 3 MiB."""

_SECTIONS: Final = ("host", "guest")
_OWN: Final = {"sock", "qmp", "machine", "serve", "watch"}
"""Keys of the configuration file that each host has of its own."""


@frozen(eq=False)
class Tree:
    """The values of ``cluster`` and ``guests/NAME`` at a revision; an empty tree stands for none."""

    values: Mapping[str, bytes] = field(factory=dict, repr=False)
    revision: int = 0


def is_configuration(key: str) -> bool:
    """Return whether a key is part of the configuration. Unknown keys are, since they are mistakes there."""
    return not key.startswith(("hosts/", "serving/", "run/"))


def settings_of(tree: Tree) -> Merged:
    """Read the settings of a tree, in which each value has its key as the source.

    Raises:
        ConfigError: something is invalid; has the key, the reason and an example of all that is.
    """
    if (size := sum(map(len, tree.values.values()))) > SIZE_MAX:
        largest = max(tree.values, key=lambda key: len(tree.values[key]))
        raise ConfigError(
            f"etcd: the tree has {size} bytes, but may have {SIZE_MAX}; the largest value is that of {escape(largest)}"
        )
    merged, mistakes = Merged(), Mistakes()
    for key, value in tree.values.items():
        with mistakes:
            _add(merged, key, value, mistakes)
    mistakes.check()
    if len(merged.guests) > GUESTS_MAX:
        raise ConfigError(f"etcd: {len(merged.guests)} guests, but a tree has at most {GUESTS_MAX}")
    return merged


def _add(merged: Merged, key: str, value: bytes, mistakes: Mistakes) -> None:
    label = f"etcd: {escape(key)}"
    try:
        document = json_object(value)
    except ValueError as error:
        raise ConfigError(f'{label}: {error}; for example: {{"serial": "1234ABC567890"}}') from None
    if key == CLUSTER:
        _add_cluster(merged, document, label, mistakes)
    elif key.startswith(GUESTS):
        _add_guest(merged, key.removeprefix(GUESTS), document, label, mistakes)
    else:
        raise ConfigError(f"{label}: unknown; known: {CLUSTER} and {GUESTS}NAME; delete it with etcdctl del")


def _add_cluster(merged: Merged, document: dict[str, Any], label: str, mistakes: Mistakes) -> None:
    for section, table in document.items():
        with mistakes:
            if section not in _SECTIONS:
                _reject_own(section, label)
                raise ConfigError(f"{label}: {section!r}: unknown; known: {' and '.join(_SECTIONS)}, as in the file")
            merged.sections[section] |= section_of(table, section, "etcd", mistakes, where=f"{CLUSTER}.{section}")


def _add_guest(merged: Merged, name: str, document: dict[str, Any], label: str, mistakes: Mistakes) -> None:
    try:
        values.name(name)
    except ValueError as error:
        raise ConfigError(f"{label}: {error}") from None
    for key in [key for key in document if key in _OWN]:
        del document[key]  # it is no unknown key too
        with mistakes:
            _reject_own(key, label)
    merged.guests[name] = Listed(name, label, section_of(document, "guest", "etcd", mistakes, where=GUESTS + name))


def _reject_own(key: str, label: str) -> None:
    if key in _OWN:
        raise ConfigError(f"{label}: {key} is each host's own; put it into the host's file, given with --config")

"""A daemon for each of several hosts: their common configuration, and each host's own."""

from __future__ import annotations

import errno
import grp
import os
from pathlib import Path

import pytest

from tests.serving import Serving, fake_guest
from vchannel import HostCommand, decode_text
from vhostcomm.config.identity import derived_uuid
from vhostcomm.config.reading import read_error

CLUSTER = "8b532c79-f207-3510-5067-79268f097d46"


@pytest.mark.slow
def test_hosts_of_a_cluster_give_a_guest_the_same_answers(tmp_path: Path) -> None:
    """The cluster's UUID and the guest's serial number are the same on both; the hosts' serial numbers differ."""
    common = tmp_path / "common"
    common.mkdir()
    (common / "nas.toml").write_text('[guests.nas]\nserial = "AAAAAAAAAAAAA"\n')
    commands = HostCommand.CLUSTER_UUID, HostCommand.GUEST_SERIAL, HostCommand.HOST_SERIAL
    answers: dict[str, list[list[str]]] = {}
    for cluster in ("", f'[host]\ncluster_uuid = "{CLUSTER}"\n'):
        (common / "cluster.toml").write_text(cluster)
        for host in ("1", "2"):
            own = tmp_path / f"{host}.toml"
            sock = tmp_path / f"sock{host}"
            own.write_text(f'[host]\nserial = "{host * 13}"\n[guests.nas]\nsock = "{sock}"\n')
            words = ("--config", common, "--config", own, "--control", tmp_path / f"control{host}")
            with Serving(*words), fake_guest(sock) as guest:
                answers.setdefault(cluster, []).append([decode_text(guest.ask(each)) for each in commands])
    # Without a common UUID, each has the one that is derived from its own serial number.
    first, second = answers.values()
    assert [each[0] for each in first] == [derived_uuid("h", "1" * 13), derived_uuid("h", "2" * 13)]
    assert second == [[CLUSTER, "A" * 13, "1" * 13], [CLUSTER, "A" * 13, "2" * 13]]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another group")
def test_error_for_a_file_of_another_group_names_the_group(tmp_path: Path) -> None:
    """On Proxmox VE, for example, only root and www-data can read the files in /etc/pve."""
    path = tmp_path / "c.toml"
    path.write_text("[guests.nas]\n")
    group = grp.getgrnam("www-data")
    os.chown(path, 0, group.gr_gid)
    path.chmod(0o640)
    denied = str(read_error(path, PermissionError(errno.EACCES, "Permission denied")))
    assert denied.endswith("add it to the group www-data; under systemd, SupplementaryGroups=www-data in the unit")
    path.chmod(0o600)
    denied = str(read_error(path, PermissionError(errno.EACCES, "Permission denied")))
    assert denied.endswith(f"chmod a+r {path}, and keep secrets in the environment")

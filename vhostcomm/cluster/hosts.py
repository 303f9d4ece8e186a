"""Ask a cluster's etcd once, for a verb of the command line."""

from __future__ import annotations

import trio

from vhostcomm.cluster.address import Access
from vhostcomm.cluster.gateway import Gateway
from vhostcomm.cluster.records import HOSTS, HostRecord, RecordError, parse_record


def hosts_of(access: Access) -> list[HostRecord]:
    """Return the hosts whose daemons run, by name. Invalid records are left out.

    Raises:
        EtcdError: no member answers.
    """
    return trio.run(_hosts_of, access)


async def _hosts_of(access: Access) -> list[HostRecord]:
    found = []
    async with Gateway(access) as gateway:
        for each in (await gateway.range(HOSTS))[0]:
            try:
                record = parse_record(each.key, each.value)
            except RecordError:
                continue  # the daemons log it
            assert isinstance(record, HostRecord)
            found.append(record)
    return found

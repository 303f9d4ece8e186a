"""A guest's disks: what the guest will make of a partition table."""

from vhostcomm.qemu.disk.layouts import LAYOUTS, SECTOR_SIZE, VDSM, Layout, Partition, find_layout

__all__ = ["LAYOUTS", "SECTOR_SIZE", "VDSM", "Layout", "Partition", "find_layout"]

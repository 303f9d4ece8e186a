"""The guest's QEMU: its disks, its command line, its life."""

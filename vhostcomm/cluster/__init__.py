"""Hosts that share their guests' identities through etcd, and tell each other which guests run on them.

The client of etcd, the tree of keys and the records in it belong here. Only `--cluster` imports it; it knows neither
the daemon nor QEMU.
"""

"""One guest's QEMU and its daemon, from the first check to the exit status, with the hooks that run on the way.

Stands above `daemon` and `qemu`; the command line alone uses it.
"""

"""One guest's QEMU and its daemon, from the first check to the exit status, with hooks at events.

Above `daemon` and `qemu`; only the command line uses it.
"""

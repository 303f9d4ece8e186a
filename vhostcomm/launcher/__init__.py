"""One guest's QEMU and its daemon, from the first check to the exit status, with hooks at events.

What needs both the daemon and QEMU belongs here: the guest's power-off before QEMU's stages, restarts, hooks. Only the
command line uses it.
"""

"""The drop-in for `qemu-host`: its flags, its HTTP API byte for byte, and its trace of every frame.

A sibling of `control`, whose HTTP server it uses. It sees the daemon through a protocol class.
"""

"""The drop-in for `qemu-host`: its flags, its HTTP API to the byte, and what it prints of every frame.

Stands beside `control`, whose HTTP server it uses; sees the daemon through a protocol class.
"""

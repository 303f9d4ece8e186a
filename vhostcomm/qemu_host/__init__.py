"""The drop-in for `qemu-host`: its flags, its HTTP API byte for byte, and its trace of every frame.

What exists only because `qemu-host` has it belongs here. Uses the HTTP server of `control`, and sees the daemon through
a protocol class.
"""

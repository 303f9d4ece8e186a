"""Sockets and sessions: between a guest's socket and its `Connection`.

Everything that binds, reads, writes, limits or records the bytes of one guest belongs here. Knows neither HTTP nor
QEMU; the daemon decides which guests are served.
"""

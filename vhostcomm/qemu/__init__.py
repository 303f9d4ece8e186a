"""QEMU: detect its capabilities, build its command, and run it until the reason of its end is known.

What depends on QEMU's versions, options, exit or QMP belongs here. Whatever can be decided without a process is pure:
`machine`, `argv`, `capabilities`, `ending` and `restart`. Knows neither the wire nor the daemon.
"""

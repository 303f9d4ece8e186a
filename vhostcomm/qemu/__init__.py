"""QEMU: detect its capabilities, build its command, and run it until the reason of its end is known.

`detect` asks a QEMU for its capabilities and `argv` turns a `machine` into a command, which `supervise` runs as a
`child` that dies with this process. `qmp` talks to QEMU, `stopping` stops it in stages, `ending` classifies its end,
and `restart` decides whether to start it again. Knows neither the wire nor the daemon.
"""

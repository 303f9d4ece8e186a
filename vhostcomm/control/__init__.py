"""The HTTP interface of a running daemon, and its client.

Requests with their checks and answers, TLS and the web page belong here. Sees the daemon as `DaemonApi`, and knows
neither sessions nor QEMU.
"""

"""The daemon: guests' ports, watched folders, freezes and their thaws, reload as a transaction, signals.

Stands above `channel` and `control`; the command line and the launcher start it.
"""

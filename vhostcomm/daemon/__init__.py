"""The daemon: guests' ports, watched directories, freezes and their thaws, reload as a transaction, signals.

Above `channel` and `control`; the command line and the launcher start it.
"""

"""The configuration as values: parse files, the environment and flags, and explain mistakes in them.

Uses only the standard library, attrs and `vchannel`. Reads files, but neither waits nor logs.
"""

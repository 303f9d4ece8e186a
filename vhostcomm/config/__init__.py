"""The configuration as values: what a file, the environment and flags may say, and what a mistake in them is.

Standard library, attrs and `vchannel` only; reads files, but neither waits nor logs.
"""

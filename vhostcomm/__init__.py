"""The host side of Virtual DSM's `vchannel`."""

__version__ = "0.1.0"

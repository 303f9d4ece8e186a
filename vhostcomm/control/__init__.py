"""The HTTP interface of a running daemon, and its client."""

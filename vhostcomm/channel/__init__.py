"""Sockets and sessions: between a guest's socket and its `Connection`."""

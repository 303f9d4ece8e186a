"""Sockets: where a guest's channel meets its connection."""

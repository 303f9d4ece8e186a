"""The interface to systemd: readiness and status notifications, the journal, and the shipped unit files.

Uses only the standard library and trio, and knows nothing about guests.
"""

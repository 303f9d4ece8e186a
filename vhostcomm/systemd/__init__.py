"""What systemd is told and asked: readiness, status, the journal, and the unit files that are shipped.

Standard library and trio; knows nothing of guests.
"""

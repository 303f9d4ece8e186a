"""Tests with systemd as PID 1, and with container engines, which `make hosts` runs."""

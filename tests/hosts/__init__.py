"""The real thing: systemd as PID 1, container engines. `make hosts` runs these; each test starts what it is about."""

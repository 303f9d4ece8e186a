"""Install a `.pat` into a directory with a guest's disks and configuration, as an ordinary user.

`pat` reads and checks a `.pat`, `stream` unpacks a compressed archive within limits, `tree` collects the system's files
and their owners, `filesystem` makes a partition of them, and `installation` does the whole.
"""

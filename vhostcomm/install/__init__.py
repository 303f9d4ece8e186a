"""Install a `.pat` into a directory with a guest's disks and configuration, as an ordinary user.

What reads a `.pat` or writes its system to a disk belongs here, with a limit for everything that a `.pat` may claim.
Knows neither the daemon nor a running QEMU.
"""

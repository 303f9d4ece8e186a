"""From a `.pat` to a folder with a guest's disks and its configuration, as an ordinary user.

`pat` knows what a `.pat` holds, `stream` unpacks a compressed archive within limits, `tree` is the system's files with their
owners, `filesystem` makes a partition of them, `installation` puts it all into a folder.
"""

from vhostcomm.install.installation import Installed, Options, Progress, install

__all__ = ["Installed", "Options", "Progress", "install"]

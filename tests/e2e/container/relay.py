"""Prints what the one that connects to a unix socket sends: relay.py SOCKET."""

from __future__ import annotations

import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    connected, _ = listener.accept()
with connected:
    while data := connected.recv(65536):
        os.write(sys.stdout.fileno(), data)

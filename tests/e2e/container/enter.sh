#!/bin/bash
# Runs the container's entry script in separate namespaces, with a directory as its /run:
#
#   enter.sh DIRECTORY     its /run, filled already
#
# This namespace also has the guest's address in the user network, with a web page at DSM's port, because the container's
# health check requests that page.
set -euo pipefail
folder=$1
mount --make-rprivate /
mount --bind "$folder" /run
ip link set lo up
ip address add 10.0.2.15/32 dev lo
mkdir -p /run/page
python3 -m http.server 5000 --bind 10.0.2.15 --directory /run/page >/dev/null 2>&1 &
cd /run
exec bash /run/entry.sh

#!/bin/bash
# Fetches Debian's QEMU 10 (bookworm-backports) beside the installed one: downloaded and unpacked into the cache, not
# installed. Prints what the tests want in their environment:
#
#   eval "$(tests/qemu10.sh)" && make e2e
set -euo pipefail

installed=$(qemu-system-x86_64 --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p' || true)
if [[ ${installed%%.*} -ge 10 ]]; then
    echo "make qemu10 is not needed: the installed QEMU is $installed, and make unit and make e2e run it" >&2
    exit 2
fi

# Its packages are made for this release's libraries.
if ! grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release; then
    echo "this is not Debian 12: QEMU 10 is left out; name one of your own in VHOSTCOMM_QEMU and run make e2e" >&2
    exit 2
fi

cache=${VHOSTCOMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vhostcomm}
suite=bookworm-backports
target=$cache/qemu-$suite

[[ -d $target ]] ||
    "$(dirname "$0")/../tools/unpack.sh" "$suite" "$target" qemu-system-x86 qemu-system-common qemu-system-data

# Its firmware comes in packages of its own; the installed ones do.
echo "export VHOSTCOMM_QEMU=$target/usr/bin/qemu-system-x86_64"
echo "export VHOSTCOMM_QEMU_DATA=$target/usr/share/qemu:/usr/share/seabios:/usr/lib/ipxe/qemu"

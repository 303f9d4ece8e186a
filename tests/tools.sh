#!/bin/bash
# Installs the Debian packages whose programs the tests and the demo run, where they are missing.
#
#   tools.sh [--check]     --check only names them, and fails if there are any
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

# What is looked for, and the package it is in.
needs=(
    qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils sfdisk:fdisk
    systemd-analyze:systemd /bin/kill:procps strace:strace setpriv:util-linux
    curl:curl jq:jq busybox:busybox-static cpio:cpio mcopy:mtools syslinux:syslinux gcc:gcc /usr/include/stdio.h:libc6-dev
    zsh:zsh fish:fish /usr/share/bash-completion/bash_completion:bash-completion mandoc:mandoc man:man-db
    tshark:tshark
    # libvirt's parts without a service of it; they run as a test's own.
    virsh:libvirt-clients virt-xml-validate:libvirt-clients xmllint:libxml2-utils libvirtd:libvirt-daemon
    "/usr/lib/$(uname -m)-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so:libvirt-daemon-driver-qemu"
    shellcheck:shellcheck
)

python=${PYTHON:-python3}
if command -v "$python" >/dev/null && ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "vhostcomm needs Python 3.11 or later, and $python is older: make PYTHON=python3.12 …" >&2
    exit 1
fi

missing=()
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
for need in "${needs[@]}"; do
    what=${need%%:*}
    if [[ $what == /* ]]; then
        [[ -e $what ]] || missing+=("${need#*:}")
    else
        command -v "$what" >/dev/null || missing+=("${need#*:}")
    fi
done

# The guest's kernel is downloaded, not installed, and apt must know of it.
lists=yes
if command -v apt-cache >/dev/null &&
    ! apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 && ! apt-cache show linux-image-virtual >/dev/null 2>&1; then
    lists=no
fi
[[ ${#missing[@]} -gt 0 || $lists == no ]] || exit 0
line="apt-get install --no-install-recommends ${missing[*]}"
if [[ ${1:-} == --check ]]; then
    [[ ${#missing[@]} -gt 0 ]] || exit 0
    echo "missing: ${missing[*]}; on Debian and Ubuntu: sudo $line" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]} (Debian's names); install them with this system's package manager" >&2
    exit 1
fi
run=()
if [[ $(id -u) != 0 ]]; then
    if ! command -v sudo >/dev/null; then
        echo "missing: ${missing[*]}; as root: $line" >&2
        exit 1
    fi
    run=(sudo)
fi
"${run[@]}" apt-get update -qq
[[ ${#missing[@]} -gt 0 ]] || exit 0
echo "installing ${missing[*]}"
"${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

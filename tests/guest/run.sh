#!/bin/bash
# Boots the stand-in guest once, with its console on this terminal. The machine is that of a genuine host, with QEMU 7.2's
# arguments.
#
#   run.sh kernel|disk SOCKET [NAME=VALUE ...] [-- QEMU-ARGUMENT ...]
#
#   kernel      start the kernel directly
#   disk        start from the boot disk, through its boot loader
#   SOCKET      where the host listens, or will listen later
#   NAME=VALUE  kernel parameters vchannel.NAME=VALUE, see README.md
#
# Writes to the disks go to a snapshot that ends with QEMU, so the cached images do not change, and any number of guests
# can run at once.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    sed -n '5,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

[[ $# -ge 2 && $1 =~ ^(kernel|disk)$ ]] || usage
boot=$1 socket=$2
shift 2

parameters=()
while [[ $# -gt 0 && $1 != -- ]]; do
    parameters+=("vchannel.$1")
    shift
done
[[ $# -eq 0 ]] || shift

paths=$("$here/build.sh" --print-paths)
while IFS='=' read -r key path; do
    declare "$key=$path"
done <<<"$paths"

# A disk on a separate controller, because the guest identifies it by the controller's PCI slot.
disk() {
    local name=$1 slot=$2 file=$3 bootindex=$4
    machine+=(
        -device "virtio-scsi-pci,id=hw-$name,bus=pci.0,addr=$slot"
        -drive "file=$file,if=none,id=drive-$name,format=raw,snapshot=on"
        -device "scsi-hd,bus=hw-$name.0,channel=0,scsi-id=0,lun=0,drive=drive-$name,id=$name,bootindex=$bootindex"
    )
}

# shellcheck disable=SC2054 # the commas are QEMU's
machine=(
    -nodefaults -no-user-config -display none
    -machine pc,accel=tcg -m 512 -smp 1
    -chardev stdio,id=console,signal=on -device isa-serial,chardev=console,id=serial0
    -netdev user,id=hostnet0 -device virtio-net-pci,netdev=hostnet0,id=net0,bus=pci.0,addr=0x2
    -device virtio-serial-pci,id=virtio-serial0,bus=pci.0,addr=0x3
    -chardev "socket,id=charchannel0,path=$socket,reconnect=1"
    -device virtserialport,bus=virtio-serial0.0,nr=1,chardev=charchannel0,id=channel0,name=vchannel
    -device virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x4
    -object rng-random,id=objrng0,filename=/dev/urandom
    -device virtio-rng-pci,rng=objrng0,id=rng0,bus=pci.0,addr=0x1c
)
disk synoboot 0xa "$BOOT_DISK" 1
disk synosys 0xb "$SYSTEM_DISK" 2
disk userdata 0xc "$DATA_DISK" 3

if [[ $boot == kernel ]]; then
    machine+=(-kernel "$KERNEL" -initrd "$INITRAMFS" -append "$(<"$CMDLINE") ${parameters[*]-}")
elif [[ ${#parameters[@]} -gt 0 ]]; then
    # The boot loader's command line is on the disk, so parameters are passed by fw_cfg. QEMU needs doubled commas.
    words="${parameters[*]}"
    machine+=(-fw_cfg "name=opt/vchannel,string=${words//,/,,}")
fi

exec qemu-system-x86_64 "${machine[@]}" "$@"

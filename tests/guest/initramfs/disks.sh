# shellcheck shell=sh
# The genuine names of the disks, and a check of the system disk's layout. Sourced by init.
#
# The genuine kernel names disks by the PCI slot of their virtio-scsi controller: 0xa is synoboot, 0xb the
# system disk sda, 0xc and up the data disks. This kernel names them in the order it finds them, so the
# genuine names are determined here and only printed.

FIRST_SLOT=10

# The layout of partition version 8, VDSM's: type, start and size (in sectors) of the first two.
VERSION_8="$((0x83)) 2048 4980480 $((0x82)) 4982528 4194304"

# Sets `name` to the one that the genuine kernel gives the disk of a controller (its host directory in sysfs).
genuine_name() {
    pci=${1#/sys/bus/pci/devices/????:??:}
    place=$((0x${pci%%.*} - FIRST_SLOT))
    [ "$place" -ge 0 ] || { name=unknown; return; }
    # shellcheck disable=SC2086 # words on purpose
    set -- synoboot sda sdb sdc sdd sde sdf sdg sdh sdi sdj sdk sdl sdm sdn sdo sdp sdq sdr sds sdt sdu
    shift "$place"
    name=$1
}

disk_of() {
    for block in "$1"/target*/*/block/*; do
        [ -e "$block" ] || return 1
        scsi_address=${block%/block/*}
        scsi_address=${scsi_address##*/}
        disk=${block##*/}
    done
}

# The kernel's line for a disk, with the genuine name in it. Sets system_disk and data_disk.
name_disk() {
    wait_for disk_of "$1" || return 0
    genuine_name "$1"
    read -r sectors <"/sys/block/$disk/size"
    echo "sd $scsi_address: [$name] $sectors 512-byte logical blocks"
    case $name in
        synoboot) boot_disk=$disk ;;
        sda) system_disk=$disk ;;
        sdb) data_disk=$disk ;;
    esac
}

name_disks() {
    boot_disk='' system_disk='' data_disk=''
    for controller in /sys/bus/pci/devices/*/virtio*/host*; do
        [ -e "$controller" ] && name_disk "$controller"
    done
    [ -n "$boot_disk" ] || echo "synoboot: no disk at PCI slot 0xa"
    [ -n "$system_disk" ] || echo "sda: no disk at PCI slot 0xb"
    [ -n "$data_disk" ] || echo "sdb: no disk at PCI slot 0xc"
}

# Sets `layout` to the first two partitions in a disk's master boot record, in the form of VERSION_8.
read_layout() {
    # An entry is 16 bytes: status and three bytes, type and three bytes, start, size. Read from the first one's type on.
    # shellcheck disable=SC2046 # words on purpose
    set -- $(od -An -v -tu4 -j 450 -N 28 "/dev/$1")
    # An empty disk has none, and arithmetic without an operand would end init.
    [ $# -lt 7 ] || layout="$(($1 & 0xff)) $2 $3 $(($5 & 0xff)) $6 $7"
}

check_partitions() {
    layout='' version=0
    [ -z "$system_disk" ] || read_layout "$system_disk"
    [ "$layout" != "$VERSION_8" ] || version=8
    echo "Partition Version=$version"
    if [ "$version" -eq 0 ]; then
        echo "Partition layout is not DiskStation style."
        echo "NOT EXECUTE /sbin/e2fsck."
    fi
}

# shellcheck shell=sh
# Which disk is which, and is the system disk laid out as a VDSM's? Sourced by init.
#
# The genuine kernel names disks by the PCI slot of their virtio-scsi controller: 0xa is synoboot, 0xb the
# system disk sda, 0xc and up the data disks. This kernel names them in the order it finds them, so the
# names are worked out here and only printed.

FIRST_SLOT=10

# The layout of partition version 8, VDSM's: start, size (in sectors) and type of the first two.
VERSION_8="2048 4980480 83 4982528 4194304 82"

# slot -> the name the genuine kernel gives the disk there
genuine_name() {
    if [ "$1" -eq "$FIRST_SLOT" ]; then
        echo synoboot
    else
        # shellcheck disable=SC2059 # the format is the letter's octal code
        printf "sd\\$(printf %o $((97 + $1 - FIRST_SLOT - 1)))\n"
    fi
}

# controller (its host directory in sysfs) -> slot, in decimal
slot_of() {
    pci=${1#/sys/bus/pci/devices/????:??:}
    echo $((0x${pci%%.*}))
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
    slot=$(slot_of "$1")
    name=$(genuine_name "$slot")
    echo "sd $scsi_address: [$name] $(cat "/sys/block/$disk/size") 512-byte logical blocks"
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

# disk, partition number -> "start size type" from its master boot record, "0 0 0" when unused
mbr_entry() {
    entry=$((446 + 16 * ($2 - 1)))
    # shellcheck disable=SC2046 # two words on purpose
    set -- "$1" "$entry" $(od -An -v -tu4 -j $((entry + 8)) -N 8 "/dev/$1")
    echo "$3 $4 $(od -An -v -tx1 -j $(($2 + 4)) -N 1 "/dev/$1" | tr -d ' ')"
}

partition_version() {
    [ -n "$system_disk" ] || { echo 0; return; }
    if [ "$(mbr_entry "$system_disk" 1) $(mbr_entry "$system_disk" 2)" = "$VERSION_8" ]; then
        echo 8
    else
        echo 0
    fi
}

check_partitions() {
    version=$(partition_version)
    echo "Partition Version=$version"
    if [ "$version" -eq 0 ]; then
        echo "Partition layout is not DiskStation style."
        echo "NOT EXECUTE /sbin/e2fsck."
    fi
}

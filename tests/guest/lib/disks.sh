# shellcheck shell=bash
# The three disks of a Virtual DSM machine, made in plain files: no loop device, no mount, no root.

readonly MIB=$((1024 * 1024))
readonly PARTITION_START=2048 # sectors

# VDSM's layout, partition version 8, in sectors. The gap before the third partition is also in the table of known layouts:
# with it, the third partition starts at exactly 4.5 GiB.
readonly SYSTEM_SIZE=$((0x4BFF00)) SWAP_START=$((0x4C0700)) SWAP_SIZE=$((0x400000)) GAP=$((0x3F900))

# With a fixed label id, two builds are equal.
partition() {
    sfdisk --quiet --no-reread --no-tell-kernel "$1" <<END
label: dos
label-id: 0x7664736d
$2
END
}

# A boot disk for a BIOS: MBR, one FAT partition, syslinux, which prints its version on the serial port.
make_boot_disk() {
    local disk=$1 kernel=$2 initramfs=$3 config=$1.cfg size offset=$((PARTITION_START * 512))
    size=$(($(stat -c %s "$kernel") + $(stat -c %s "$initramfs") + 4 * MIB))
    truncate -s $(((size / MIB + 2) * MIB)) "$disk"
    partition "$disk" "start=$PARTITION_START, type=6, bootable"
    dd if="$SYSLINUX_MBR" of="$disk" conv=notrunc status=none

    mformat -i "$disk@@$offset" -v SYNOBOOT -N 7664736d -H $PARTITION_START -h 255 -s 63 \
        -T $(((size / MIB + 1) * 2048)) ::
    syslinux --install --offset "$offset" "$disk"
    boot_config >"$config"
    mcopy -i "$disk@@$offset" "$kernel" ::vmlinuz
    mcopy -i "$disk@@$offset" "$initramfs" ::initrd.gz
    mcopy -i "$disk@@$offset" "$config" ::syslinux.cfg
    rm "$config"
}

boot_config() {
    cat <<END
SERIAL 0 115200
DEFAULT guest
LABEL guest
    KERNEL vmlinuz
    INITRD initrd.gz
    APPEND $CMDLINE
END
}

# Sparse, because only its table is read. 6 GiB leave space for the third partition.
make_system_disk() {
    truncate -s 6G "$1"
    partition "$1" "start=$PARTITION_START, size=$SYSTEM_SIZE, type=83
start=$SWAP_START, size=$SWAP_SIZE, type=82
start=$((SWAP_START + SWAP_SIZE + GAP)), type=83"
}

make_data_disk() {
    truncate -s 64M "$1"
    partition "$1" "start=$PARTITION_START, type=83"
}

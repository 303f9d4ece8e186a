# shellcheck shell=bash disable=SC2034,SC2154 # build.sh shares its variables
# The kernel: Debian's for virtual machines, downloaded and unpacked but not installed, or another one.

# Debian's package, and the most similar one of Ubuntu.
readonly META_PACKAGES=(linux-image-cloud-amd64 linux-image-virtual)

# The drivers, dependencies apart, by the lists that init loads: at every boot, for a virtio device that is there,
# with vchannel.acpi, with vchannel.system=1. Only drivers of `machine` may be dependencies in two of them.
# ext4 asks for crc32c by name, without depending on it.
readonly DRIVERS=(
    "machine virtio_pci qemu_fw_cfg pvpanic_pci"
    "console virtio_console"
    "disks virtio_scsi sd_mod"
    "network virtio_net"
    "balloon virtio_balloon"
    "random virtio_rng"
    "button button evdev"
    "system crc32c_generic ext4"
)

# Sets `kernel`, and `modules` to the directory of its modules or to nothing.
find_kernel() {
    if [[ -n ${VHOSTCOMM_KERNEL-} ]]; then
        kernel=$VHOSTCOMM_KERNEL
        modules=${VHOSTCOMM_MODULES-}
        [[ -r $kernel ]] || die "VHOSTCOMM_KERNEL: cannot read $kernel"
        [[ -z $modules || -d $modules ]] || die "VHOSTCOMM_MODULES: no directory $modules"
        return
    fi
    local folder
    folder=$(debian_kernel)
    kernel=$folder/vmlinuz
    modules=$folder/modules
}

kernel_fingerprint() {
    sha256sum <"$kernel"
    [[ -z $modules ]] || (cd "$modules" && find . -type f -printf '%P %s\n' | LC_ALL=C sort)
}

# Prints the directory of the unpacked Debian kernel. The newest that apt knows; without package lists, the
# newest in the cache.
debian_kernel() {
    local package folder
    package=$(newest_package)
    if [[ -z $package ]]; then
        folder=$(find "$cache" -maxdepth 1 -name 'kernel-*' | sort -V | tail -n 1)
        [[ -n $folder ]] || die "apt knows none of ${META_PACKAGES[*]}: run apt-get update, or set VHOSTCOMM_KERNEL"
        echo "$folder"
        return
    fi
    folder=$cache/kernel-${package/=/_}
    [[ -d $folder ]] || unpack_kernel "$package" "$folder"
    echo "$folder"
}

# The package on which the metapackage depends, as NAME=VERSION or NAME; empty if apt has no lists.
newest_package() {
    local meta found
    for meta in "${META_PACKAGES[@]}"; do
        found=$({ LC_ALL=C apt-cache show --no-all-versions "$meta" 2>/dev/null || true; } |
            sed -nE 's/^Depends:.*\b(linux-image-[0-9][^ ,]*)( \(= ([^)]+)\))?.*/\1=\3/p' | head -n 1)
        [[ -z $found ]] || { echo "${found%=}"; return; }
    done
}

unpack_kernel() {
    local package=$1 folder=$2 work deb
    say "downloading $package"
    work=$(workspace)
    # apt would download as its own user, who has no access to this directory
    (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package" >&2) ||
        die "cannot download $package: run apt-get update, or set VHOSTCOMM_KERNEL"
    if [[ $package == *-generic ]]; then
        # Ubuntu has the modules in packages of their own; the second one need not exist.
        (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "${package/image/modules}" >&2) ||
            die "cannot download ${package/image/modules}"
        (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "${package/image/modules-extra}" >&2) || true
    fi
    for deb in "$work"/*.deb; do
        dpkg-deb -x "$deb" "$work/tree"
    done
    mv "$work"/tree/boot/vmlinuz-* "$work/out/vmlinuz"
    # Debian 13's package has the modules in /usr/lib/modules, Debian 12's in /lib/modules.
    find "$work/tree" -path '*/lib/modules/*' -prune -exec mv -T {} "$work/out/modules" \;
    mv -T "$work/out" "$folder"
}

# Takes the kernel out of its compressed image, for QEMU's -kernel: under TCG, decompressing it is a tenth of a boot.
# False where it is compressed in another way, or has no entry for this (the note PVH).
uncompressed_kernel() {
    local image=$1 out=$2 work=$3 start length
    start=$((512 * ($(number_at "$image" 0x1f1 1) + 1) + $(number_at "$image" 0x248 4)))
    length=$(($(number_at "$image" 0x24c 4) - 4)) # the last four bytes are the kernel's length
    compile "$work/unlz4" "$here/lib/unlz4.c"
    dd if="$image" bs=1M skip="$start" count="$length" iflag=skip_bytes,count_bytes status=none >"$work/payload"
    "$work/unlz4" <"$work/payload" >"$out" || xz -qqdc <"$work/payload" >"$out" || return 1
    [[ $(readelf --notes "$out" 2>/dev/null) == *"(0x00000012)"* ]]
}

# The number of $3 bytes at an offset in a file. The offsets are those of Linux's boot protocol.
number_at() { od -An -v -tu"$3" -j $(($2)) -N "$3" "$1" | tr -d ' '; }

# A module's file; its name may be spelt with - or _.
module_file() { find "$modules" -name "${1//[-_]/[-_]}.ko*" -print -quit; }

is_built_in() { grep -q "/${1//[-_]/[-_]}\.ko$" "$modules/modules.builtin" 2>/dev/null; }

# Puts a module's plain .ko into directory $2, what it depends on first, and prints the names in that order.
copy_module() {
    local name=${1//-/_} folder=$2 file dependency
    [[ -n $modules && ! -e $folder/$name.ko ]] || return 0
    file=$(module_file "$name")
    if [[ -z $file ]]; then
        is_built_in "$name" || die "the kernel has no driver $name: not in $modules, not in its modules.builtin"
        return 0
    fi
    decompress "$file" >"$folder/$name.ko"
    # Under TCG, checking a driver's signature and reading its types (the kernel's own 4 MB first) takes longer than its start.
    objcopy --strip-debug --remove-section=.BTF "$folder/$name.ko"
    for dependency in $(dependencies "$folder/$name.ko"); do
        copy_module "$dependency" "$folder"
    done
    echo "$name.ko"
}

# Read from the module, because an unpacked kernel has no modules.dep.
dependencies() { tr '\0' '\n' <"$1" | LC_ALL=C sed -n 's/^depends=//p' | tr ',' ' '; }

decompress() {
    case $1 in
        *.xz) xz -dc "$1" ;;
        *.gz) gzip -dc "$1" ;;
        *.zst) zstd -qdc "$1" ;;
        *) cat "$1" ;;
    esac
}

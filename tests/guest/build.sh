#!/bin/bash
# Builds the stand-in guest into the cache, or finds it there.
#
#   build.sh                 builds what is missing, and prints its directory
#   build.sh --print-paths   the same, and prints KEY=path lines on stdout
#
# Environment:
#   VHOSTCOMM_CACHE     the cache directory (default $XDG_CACHE_HOME/vhostcomm, ~/.cache/vhostcomm)
#   VHOSTCOMM_KERNEL    a kernel image instead of Debian's
#   VHOSTCOMM_MODULES   its /lib/modules/RELEASE; without it the drivers must be built in
#
# Needs no root, no loop device and no mount. A build's directory has a name with a hash of all inputs, and is renamed to
# it when complete, so every build in the cache is complete and up to date.

set -euo pipefail
shopt -s inherit_errexit # or a failure inside $(...) goes unnoticed

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${VHOSTCOMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vhostcomm}
PATH=$PATH:/usr/sbin:/sbin # sfdisk, for users whose PATH lacks them

# shellcheck source=lib/kernel.sh
source "$here/lib/kernel.sh"
# shellcheck source=lib/initramfs.sh
source "$here/lib/initramfs.sh"
# shellcheck source=lib/disks.sh
source "$here/lib/disks.sh"

readonly BUSYBOX=/usr/bin/busybox
readonly SYSLINUX_MBR=/usr/lib/SYSLINUX/mbr.bin

# The guest never uses these parts of the kernel, and each takes ten milliseconds or more to initialise under TCG: tracing,
# types for BPF (TCP's cubic registers some), a self-test, certificates, SLUB's files.
readonly UNUSED="ftrace_check_for_weak_functions,init_blk_tracer,init_kprobe_trace,trace_eval_init,tracer_init_tracefs,\
bpf_key_sig_kfuncs_init,bpf_prog_test_run_init,bpf_rstat_kfunc_init,bpf_tcp_ca_kfunc_init,cubictcp_register,kfunc_init,\
crypto_kdf108_init,load_system_certificate_list,slab_sysfs_init"

# The kernel's command line for every way of booting; tests append `vchannel.…` parameters.
# quiet, notests: each line on an emulated serial port, and each self-test under TCG, costs milliseconds.
# mitigations, init_on_alloc, apparmor, audit: protection and clean pages that this guest does not need, and that cost time under TCG.
# no_timer_check: a kernel with an I/O APIC counts its timer's ticks against its own loop, and panics if a busy host holds QEMU up.
# rodata, noreplace-smp: the kernel would change its own code, and TCG would translate it again.
# clearcpuid: TCG does string instructions byte by byte; the kernel's loops are faster.
readonly CMDLINE="console=ttyS0 quiet cryptomgr.notests no_timer_check mitigations=off init_on_alloc=0 apparmor=0 audit=0 \
rodata=off noreplace-smp clearcpuid=erms,fsrm,rep_good initcall_blacklist=$UNUSED"

say() { echo "guest: $*" >&2; }

die() {
    say "$*"
    exit 1
}

# A workspace in the directory of the finished builds, so that its `out` can be renamed to a finished build.
workspace() {
    local folder
    folder=$(mktemp -d "$cache/build.XXXXXX")
    mkdir "$folder/out"
    echo "$folder"
}

# Of parallel test workers, the first builds and the others wait. The process that has the lock owns every workspace,
# including those of killed builds.
lock_cache() {
    mkdir -p "$cache"
    exec {lock}>"$cache/lock"
    flock "$lock"
    trap 'rm -rf "$cache"/build.*' EXIT
}

# The inputs for the hash: scripts and sources, the kernel, and the tools whose output the build contains.
build_key() {
    {
        (cd "$here" && find agent initramfs lib build.sh -type f | LC_ALL=C sort | xargs sha256sum)
        kernel_fingerprint
        sha256sum "$BUSYBOX" "$SYSLINUX_MBR" "$(command -v syslinux)"
        gcc --version
    } | sha256sum | cut -c1-16
}

build_into() {
    local out=$1 work=$2
    uncompressed_kernel "$kernel" "$out/kernel" "$work" || cp "$kernel" "$out/kernel"
    echo "$CMDLINE" >"$out/cmdline"
    make_initramfs "$out/initramfs.cpio" "$work"
    gzip -n9 <"$out/initramfs.cpio" >"$work/initramfs.cpio.gz"
    make_boot_disk "$out/boot.img" "$kernel" "$work/initramfs.cpio.gz"
    make_system_disk "$out/system.img"
    make_data_disk "$out/data.img"
}

# Sets `guest` to the directory of the finished build.
ensure_guest() {
    local work
    guest=$cache/guest-$(build_key)
    [[ -d $guest ]] && return
    say "building $guest"
    work=$(workspace)
    build_into "$work/out" "$work"
    mv -T "$work/out" "$guest"
}

print_paths() {
    cat <<END
KERNEL=$guest/kernel
INITRAMFS=$guest/initramfs.cpio
CMDLINE=$guest/cmdline
BOOT_DISK=$guest/boot.img
SYSTEM_DISK=$guest/system.img
DATA_DISK=$guest/data.img
END
}

main() {
    local print=no
    case ${1-} in
        '') ;;
        --print-paths) print=yes ;;
        *) die "usage: build.sh [--print-paths]" ;;
    esac
    "$here/../tools.sh" --check guest
    lock_cache
    find_kernel
    ensure_guest
    if [[ $print == yes ]]; then
        print_paths
    else
        say "ready in $guest"
    fi
}

main "$@"

# shellcheck shell=bash disable=SC2034,SC2154 # build.sh shares its variables
# What has to be installed, and where its files are.

readonly BUSYBOX=/usr/bin/busybox
readonly SYSLINUX_MBR=/usr/lib/SYSLINUX/mbr.bin

# Each check and the Debian package that satisfies it.
missing_packages() {
    local tool
    declare -A package_of=([gcc]=gcc [cpio]=cpio [mcopy]=mtools [syslinux]=syslinux [sfdisk]=fdisk
        [dpkg-deb]=dpkg [apt-get]=apt [xz]=xz-utils)
    for tool in "${!package_of[@]}"; do
        command -v "$tool" >/dev/null || echo "${package_of[$tool]}"
    done
    # -print-file-name gives back the bare name of a file it does not find
    [[ $(gcc -print-file-name=libc.a 2>/dev/null) == /* ]] || echo libc6-dev
    is_static "$BUSYBOX" || echo busybox-static
    [[ -e $SYSLINUX_MBR ]] || echo syslinux
}

# The initramfs has no libraries: the dynamically linked package `busybox` will not do.
is_static() { [[ -x $1 ]] && ! LC_ALL=C ldd "$1" >/dev/null 2>&1; }

need_packages() {
    local missing
    missing=$(missing_packages | LC_ALL=C sort -u | tr '\n' ' ')
    [[ -z $missing ]] || die "missing Debian packages; get them with: apt-get install ${missing% }"
}

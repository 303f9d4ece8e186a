# shellcheck shell=bash disable=SC2034,SC2154 # build.sh shares its variables
# The initramfs: busybox, the drivers, the agent, and the scripts beside this directory.

# All that `init` calls: a link for each of busybox's hundreds costs a boot under TCG more than the drivers do.
readonly APPLETS=(cat dd grep head ip ls mount nc od poweroff sh sleep sync true udhcpc umount usleep)

compile() {
    gcc -static -Os -s -std=gnu11 -Wall -Wextra -o "$@"
}

install_busybox() {
    local bin=$1 applet
    cp "$BUSYBOX" "$bin/busybox"
    for applet in "${APPLETS[@]}"; do
        ln -s busybox "$bin/$applet"
    done
}

install_modules() {
    local root=$1 list name driver
    for list in "${DRIVERS[@]}"; do
        name=${list%% *}
        for driver in ${list#* }; do
            copy_module "$driver" "$root/lib/modules"
        done >"$root/etc/modules/$name"
    done
}

# Sorted, owned by root, with one date, so that the same input gives the same bytes.
pack() {
    find "$1" -mindepth 1 -exec touch -h -d @0 {} +
    (cd "$1" && find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort |
        cpio --quiet --reproducible -o -H newc -R +0:+0)
}

make_initramfs() {
    local out=$1 root=$2/root
    mkdir -p "$root"/{bin,dev,etc/modules,lib/modules,mnt,proc,sys}
    install_busybox "$root/bin"
    install_modules "$root"
    compile "$root/bin/agent" "$here"/agent/*.c
    compile "$root/bin/load" "$here/initramfs/load.c"
    cp "$here/initramfs/init" "$root/init"
    cp "$here/initramfs/disks.sh" "$root/lib/disks.sh"
    pack "$root" >"$out"
}

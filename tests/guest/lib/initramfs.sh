# shellcheck shell=bash disable=SC2034,SC2154 # build.sh shares its variables
# The initramfs: busybox, the drivers, the agent, and the scripts beside this folder.

compile_agent() {
    gcc -static -Os -s -std=gnu11 -Wall -Wextra -o "$1" "$here"/agent/*.c
}

install_busybox() {
    local bin=$1 applet
    cp "$BUSYBOX" "$bin/busybox"
    for applet in $("$BUSYBOX" --list); do
        [[ $applet == busybox ]] || ln -s busybox "$bin/$applet"
    done
}

install_modules() {
    local root=$1 driver
    for driver in "${DRIVERS[@]}"; do
        copy_module "$driver" "$root/lib/modules"
    done >"$root/etc/modules"
    for driver in "${BUTTON_DRIVERS[@]}"; do
        copy_module "$driver" "$root/lib/modules"
    done >/dev/null
    for driver in "${SYSTEM_DRIVERS[@]}"; do
        copy_module "$driver" "$root/lib/modules"
    done >"$root/etc/modules.system"
}

# The same bytes for the same input: sorted, owned by root, one date, no name in the gzip header.
pack() {
    find "$1" -mindepth 1 -exec touch -h -d @0 {} +
    (cd "$1" && find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort |
        cpio --quiet --reproducible -o -H newc -R +0:+0) | gzip -n9
}

make_initramfs() {
    local out=$1 root=$2/root
    mkdir -p "$root"/{bin,dev,etc,lib/modules,mnt,proc,sys}
    install_busybox "$root/bin"
    install_modules "$root"
    compile_agent "$root/bin/agent"
    cp "$here/initramfs/init" "$root/init"
    cp "$here/initramfs/disks.sh" "$root/lib/disks.sh"
    pack "$root" >"$out"
}

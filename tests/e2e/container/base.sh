# shellcheck shell=bash disable=SC2034 # the container's scripts read these
# Replaces the container's base image: functions and settings that the container's scripts use, written only from the way
# in which the scripts call them. The machine is the stand-in guest's, without KVM.

# -- variables that other scripts of the base image set

: "${QEMU_DIR:=/run/shm}"
QEMU_PID=$QEMU_DIR/qemu.pid
QEMU_START_PID=$QEMU_DIR/qemu.start.pid
QEMU_END=$QEMU_DIR/qemu.end
HELPER_PIDS=()
: "${APP:=Virtual DSM}" "${DEBUG:=}" "${ARGUMENTS:=}"
ARCH=amd64 CPU="Test CPU" PROCESS=vdsm
CPU_CORES=1 CPU_FLAGS=qemu64 RAM_SIZE=384M
MACHINE=pc KVM_OPTS=,accel=tcg
DISPLAY_OPTS="-display none" BOOT_OPTS=${GUEST_PARAMETERS:-}
NET_OPTS="-netdev user,id=hostnet0 -device virtio-net-pci,netdev=hostnet0,id=net0,bus=pci.0,addr=0x2"
DISK_OPTS=
for each in synoboot:0xa:"$BOOT_DISK" synosys:0xb:"$SYSTEM_DISK" userdata:0xc:"$DATA_DISK"; do
    IFS=: read -r name slot file <<<"$each"
    DISK_OPTS+=" -device virtio-scsi-pci,id=hw-$name,bus=pci.0,addr=$slot"
    DISK_OPTS+=" -drive file=$file,if=none,id=drive-$name,format=raw,snapshot=on"
    DISK_OPTS+=" -device scsi-hd,bus=hw-$name.0,scsi-id=0,lun=0,drive=drive-$name,id=$name"
    [[ $name != synoboot ]] || DISK_OPTS+=,bootindex=1
done

# -- messages

info() { printf 'info: %b\n' "${1-}"; }
warn() { printf 'warn: %b\n' "${1-}" >&2; }
error() { printf 'error: %b\n' "${1-}" >&2; }
app() { printf '%s\n' "$APP"; }

# -- values

strip() { sed -E 's/^[[:space:]]+//; s/[[:space:]]+$//' <<<"${1-}"; }
enabled() { [[ ${1-} =~ ^([Yy].*|[Tt]rue|1|[Oo]n)$ ]]; }
disabled() { [[ ${1-} =~ ^([Nn].*|[Ff]alse|0|[Oo]ff)$ ]]; }
interactive() { [[ -t 0 ]] && { : </dev/tty; } 2>/dev/null; }
getPciBus() { echo pci.0; }
finalizeMemory() { :; }
writeAtomic() { printf '%s' "$2" >"$1.new" && mv "$1.new" "$1"; }

# -- processes

isAlive() { kill -0 "$1" 2>/dev/null; }

# Sets the variable named $1 to the number in the file $2.
readPidFile() {
    local -n number=$1
    number=$(cat "$2" 2>/dev/null) && [[ $number =~ ^[0-9]+$ ]]
}

readQemuPid() { readPidFile "$1" "$QEMU_START_PID" || readPidFile "$1" "$QEMU_PID"; }

waitQemuPid() {
    local tries
    for ((tries = 0; tries < 50; tries++)); do
        ! readQemuPid "$1" || return 0
        sleep 0.02
    done
    return 1
}

waitQemuExit() {
    local running tries
    readQemuPid running || return 0
    for ((tries = 0; tries < ${1:-10} * 10; tries++)); do
        isAlive "$running" || return 0
        sleep 0.1
    done
    return 1
}

forceKillQemu() {
    local running
    if readQemuPid running && isAlive "$running"; then
        error "killed for $1"
        kill -9 "$running" 2>/dev/null || :
    fi
}

# Ends the processes whose numbers are in these files.
mKill() {
    local file running
    for file; do
        if readPidFile running "$file" && isAlive "$running"; then kill "$running" 2>/dev/null || :; fi
        rm -f "$file"
    done
}

fKill() { :; } # kills by name; here, processes end with their namespace
cleanupHelpers() { mKill "$@"; }

_trap() {
    local handler=$1 signal
    TRAP_PID=$BASHPID
    shift
    # shellcheck disable=SC2064 # now
    for signal; do trap "$handler $signal" "$signal"; done
}

signalCode() { echo $((128 + $(kill -l "${1#SIG}"))); }

# -- the terminal: QEMU is out of its process group, as in the base image, and its console goes through a relay

startConsole() {
    stty -icanon -echo isig
    (trap '' INT QUIT; exec python3 "$BASE/relay.py" "$CONSOLE_SOCKET") </dev/null &
    echo $! >"$CONSOLE_PID"
    until [[ -S $CONSOLE_SOCKET ]]; do sleep 0.02; done
}

startQemu() {
    # shellcheck disable=SC2016 # the inner shell's
    (trap '' INT QUIT; exec setsid --wait sh -c '"$@" & echo $! >"$0"; wait $!' "$QEMU_START_PID" "$@") </dev/null &
}

stopConsole() { mKill "$CONSOLE_PID"; }

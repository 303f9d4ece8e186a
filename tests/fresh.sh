#!/bin/bash
# Tries the README's two commands in a new minimal directory of a Debian release, with only git, make and ca-certificates.
#
#   fresh.sh            make demo, then make test
#   fresh.sh TEST ...   make demo, then only these tests and the programs as one file
#
# Environment:
#   SUITE               the release (default trixie; on Debian 13 bookworm)
#   VHOSTCOMM_CACHE     the cache, which keeps the bootstrapped directory for a week (default as in guest/build.sh)
#
# What is committed is tried. Namespaces of its own hold all processes and mounts, and end with this script.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${VHOSTCOMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vhostcomm}
release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null || true)
other=trixie
[[ $release == trixie ]] && other=bookworm
suite=${SUITE:-$other}

say() { echo "fresh $suite: $*" >&2; }
skip() { say "skipped: $*"; exit 0; }

[[ $(id -u) == 0 ]] || skip "making a Debian directory needs root"
command -v apt-get >/dev/null || skip "this system has no apt"
git -C "$here/.." rev-parse --git-dir >/dev/null 2>&1 || skip "this is not a git clone"
unshare --mount --pid --fork true 2>/dev/null || skip "this system permits no namespaces"
# shellcheck disable=SC2016 # apt expands it
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1 || true)
[[ -n $mirror ]] || skip "apt knows no mirror; run: apt-get update"
"$here/tools.sh" fresh

mkdir -p "$cache"
exec {lock}>"$cache/fresh.lock"
flock "$lock"
rm -rf --one-file-system "$cache"/fresh.*.work
work=$(mktemp -d "$cache/fresh.XXXXXX.work")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root

# New every week: a release gets updates, and an old directory would first have to install them.
bootstrapped=$cache/fresh-$suite-$(date +%G-%V).tar
if [[ ! -e $bootstrapped ]]; then
    say "bootstrapping from $mirror"
    mmdebstrap --quiet --variant=minbase --include=git,make,ca-certificates "$suite" "$work/new.tar" "$mirror"
    rm -f "$cache/fresh-$suite"-*.tar
    mv "$work/new.tar" "$bootstrapped"
fi
mkdir "$root"
tar -C "$root" -xf "$bootstrapped"

# The network's own configuration: names, certificates, apt's and pip's settings.
cp --remove-destination -L /etc/resolv.conf /etc/hosts "$root/etc/"
[[ ! -e /etc/ssl/certs/ca-certificates.crt ]] || cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
apt-config dump | grep '^Acquire::' >"$root/etc/apt/apt.conf.d/99network" || true
cp -r /etc/apt/auth.conf.d "$root/etc/apt/" 2>/dev/null || true
[[ ! -e /etc/pip.conf ]] || cp /etc/pip.conf "$root/etc/"
environment=(HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
for name in PIP_CERT PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_DEFAULT_TIMEOUT http_proxy https_proxy no_proxy; do
    [[ -z ${!name-} ]] || environment+=("$name=${!name}")
done
git clone --quiet --no-local "$here/.." "$root/root/vhostcomm"

# Its own root, not only chroot's: the kernel refuses user namespaces, which libvirt's tests use, to a chroot.
# shellcheck disable=SC2016 # expanded inside
inside='set -e
mount --make-rprivate /
mount --bind "$0" "$0"
for each in dev sys; do mount --rbind "/$each" "$0/$each"; done
mount -t proc proc "$0/proc"
mkdir "$0/host"
cd "$0"
pivot_root . host
cd /root/vhostcomm
umount --lazy /host
rmdir /host
"$@"
exit $?'
run_in() { unshare --mount --pid --fork --kill-child bash -c "$inside" "$root" env -i "${environment[@]}" "$@"; }

failed=()
try() {
    local begin=$SECONDS name=$1
    shift
    say "$name"
    if run_in "$@"; then
        say "$name passed in $((SECONDS - begin)) s"
    else
        failed+=("$name")
        say "$name failed after $((SECONDS - begin)) s"
    fi
}

# With SIGINT ignored, as in a background job of a script.
try "make demo" sh -c "trap '' INT; exec make demo"
if [[ $# -eq 0 ]]; then
    try "make test" make test
else
    # The one file has bytecode for either release's Python: the other one's comes from an archive of packages.
    try "a part of make test" make packages-test pyz unit TESTS="$*"
fi
[[ ${#failed[@]} -eq 0 ]] || { say "failed: $(printf '%s; ' "${failed[@]}")the output is above"; exit 1; }
say "all passed"

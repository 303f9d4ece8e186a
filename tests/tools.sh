#!/bin/bash
# Installs the Debian packages that a target of the Makefile needs: tests/packages lists them.
#
#   tools.sh venv|demo|test|fresh  list what is missing, install it as root or with sudo, else print the command to paste
#   tools.sh --check guest|demo    only list what is missing, and fail if anything is
set -euo pipefail
shopt -s nullglob
PATH=$PATH:/usr/sbin:/sbin
here=$(dirname "${BASH_SOURCE[0]}")
python=${PYTHON:-python3}

check=no
[[ ${1-} == --check ]] && { check=yes; shift; }
case ${1-} in
    venv) groups= ;;
    guest) groups=guest ;;
    demo) groups='guest demo' ;;
    test) groups='guest demo test' ;;
    fresh) groups=fresh ;;
    *) sed -n '4,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac

# A dynamically linked busybox does not start in the guest, which has no libraries.
is_there() {
    local matches
    # shellcheck disable=SC2206 # the pattern is to be expanded
    case $1 in
        /usr/bin/busybox) [[ -x $1 ]] && ! LC_ALL=C ldd "$1" >/dev/null 2>&1 ;;
        /*) matches=($1) && [[ -e ${matches[0]-} ]] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

missing=() list=()
miss() {
    [[ " ${missing[*]} " == *" $1 "* ]] && return
    missing+=("$1")
    list+=("$(printf '   %-28s%s' "$1" "$2")")
}

if [[ $groups != guest && $groups != fresh ]]; then
    if command -v "$python" >/dev/null && ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "vhostcomm needs Python 3.11 or later; $python is older. Try: make PYTHON=python3.12 $1" >&2
        exit 1
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null || miss python3-venv "to create .venv"
fi
while read -r group what package use; do
    [[ " $groups " == *" $group "* ]] || continue
    is_there "$what" || miss "$package" "$use"
done <"$here/packages"

# apt must know the guest's kernel too, which is downloaded and not installed.
lists=yes
if command -v apt-cache >/dev/null &&
    ! apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 && ! apt-cache show linux-image-virtual >/dev/null 2>&1; then
    lists=no
fi
[[ ${#missing[@]} -gt 0 || ($lists == no && -n $groups && $check == no) ]] || exit 0

if [[ ${#missing[@]} -gt 0 ]]; then
    echo "Missing Debian packages, and what make $1 uses them for:"
    printf '%s\n' "${list[@]}"
fi >&2
command="sudo apt-get install --no-install-recommends ${missing[*]}"
[[ $lists == yes ]] || command="sudo apt-get update && $command"
[[ ${#missing[@]} -gt 0 ]] || command="sudo apt-get update"

# Python's venv is the one package that nothing is possible without.
paste() {
    echo "$1: $command" >&2
    [[ $check == no && " ${missing[*]} " != *" python3-venv "* ]] || exit 1
    exit 0
}

[[ $check == no ]] || paste "Install them"
command -v apt-get >/dev/null || paste "This system has no apt-get. On Debian and Ubuntu"
run=()
if [[ $(id -u) != 0 ]]; then
    # Without a terminal, sudo can't ask for the password.
    { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [[ -t 0 ]] && sudo -v; }; }; } ||
        paste "Install them"
    run=(sudo)
fi
if [[ ${#missing[@]} -gt 0 ]]; then
    echo "Installing them with apt-get" >&2
else
    echo "Updating apt's lists, for the guest's kernel" >&2
fi
"${run[@]}" apt-get update -qq
[[ ${#missing[@]} -eq 0 ]] ||
    "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

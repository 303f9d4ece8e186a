#!/bin/bash
# Downloads Debian packages of a release and unpacks them into a directory, without installing them. The mirror is this
# machine's own.
#
#   unpack.sh SUITE FOLDER PACKAGE...
set -euo pipefail

suite=$1 target=$2
shift 2

# shellcheck disable=SC2016 # apt expands it
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
[[ -n $mirror ]] || { echo "apt knows no mirror: run apt-get update first" >&2; exit 1; }

mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,debs,root}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
signed=; [[ -e $keyring ]] && signed="[signed-by=$keyring] "
echo "deb $signed$mirror $suite main" >"$work/sources.list"
apt=(apt-get -qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o APT::Sandbox::User=root -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=")
# Ignore installed packages: apt requires versions at least as new, which an older release does not have.
apt+=(-o Dir::State::status=/dev/null)
"${apt[@]}" update >&2
(cd "$work/debs" && "${apt[@]}" download "$@" >&2)
for each in "$work"/debs/*.deb; do dpkg -x "$each" "$work/root"; done
# Renamed when it is complete, so that an existing directory is whole. Another process may have been first.
mv -T "$work/root" "$target" || [[ -d $target ]]

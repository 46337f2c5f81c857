#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What tests/roots/image.py needs: in .build/roots, the Debian that the image is made of. Minutes, once.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/packages.sh
root=$PWD/.build/roots/bookworm

packages=()
command -v debootstrap > /dev/null || packages+=(debootstrap)
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || packages+=(debian-archive-keyring)
[ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"

[ ! -e "$root.made" ] || exit 0
mirror=$(debian_mirror)
rm -rf "$root"
mkdir -p "$root"
debootstrap --variant=minbase bookworm "$root" "$mirror" > "$root.log" 2>&1 || {
	tail -n 30 "$root.log" >&2
	exit 1
}
touch "$root.made"

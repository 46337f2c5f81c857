#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The nginx and the OpenSSL 1.1.1 of Debian 11, unpacked into the directory $1 and installed nowhere.
set -euo pipefail
. "$(dirname "$0")/../../../../tools/packages.sh"
target=$1
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || install_packages debian-archive-keyring

# An apt of its own: its sources, its lists, nothing of this system's.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
touch "$work/status"
echo "deb [signed-by=$keyring] $(debian_mirror) bullseye main" > "$work/sources.list"
own() {
	apt-get -q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State="$work" -o Dir::State::Status="$work/status" -o Dir::Cache="$work/cache" \
		-o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}
own update
(cd "$work" && own download libpcre3 libssl1.1 nginx-light)
rm -rf "$target" "$target.part"
for package in "$work"/*.deb; do
	dpkg-deb --extract "$package" "$target.part"
done
mv "$target.part" "$target"

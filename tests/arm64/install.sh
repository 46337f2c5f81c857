#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What tests/arm64 needs: an emulator of arm64, and Debian's own arm64 kernel, unpacked into
# .build/arm64 without being installed. Quick when all is there; fails when one cannot be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/packages.sh
built=$PWD/.build/arm64
apt=$built/apt

packages=()
need() { [ -e "$1" ] || packages+=("$2"); }
need /usr/bin/qemu-system-aarch64 qemu-system-arm
need /bin/busybox busybox-static
[ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"

# Sources and lists of our own, and no packages installed, as another machine has none.
own_apt() {
	local program=$1
	shift
	"$program" -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root \
		-o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$apt/lists" -o Dir::State::status=/dev/null \
		-o Dir::Cache="$apt/cache" "$@"
}

fetch_kernel() {
	local mirror image
	mirror=$(grep -hoE '^(URIs:|deb )[^#]*' /etc/apt/sources.list /etc/apt/sources.list.d/*.sources \
		2> /dev/null | grep -oE '[a-z]+://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true)
	mirror=${mirror:-https://deb.debian.org/debian}
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" \
		> "$apt/sources.list"
	own_apt apt-get update -qq
	image=$(own_apt apt-cache pkgnames linux-image-6.12 | grep -E '^linux-image-[0-9].*-cloud-arm64$' |
		sort -V | tail -n 1)
	(cd "$apt/cache" && own_apt apt-get download -qq "$image")
	dpkg-deb -x "$apt/cache/$image"_*.deb "$built"
	rm "$apt/cache/$image"_*.deb
}
compgen -G "$built/boot/vmlinuz-*" > /dev/null || fetch_kernel

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What `make test-kernels` needs: an emulator, and Debian's own kernels, unpacked into .build/vm
# without being installed. Arguments are the first words of kernel releases ("5.10", "6.1.");
# "newest" is the newest that Debian has. Quick when all is there; fails when one cannot be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/packages.sh
built=$PWD/.build/vm
apt=$built/apt
kernels=$built/kernels

packages=()
need() { [ -e "$1" ] || packages+=("$2"); }
need /usr/bin/qemu-system-x86_64 qemu-system-x86
need /usr/lib/qemu/virtiofsd qemu-system-common
need /bin/busybox busybox-static
[ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"

# Sources and lists of our own, so that the system's stay as they are; its mirror is used.
own_apt() {
	local program=$1
	shift
	"$program" -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" \
		-o APT::Sandbox::User=root "$@"
}

mirror() {
	grep -hoE "^(URIs:|deb )[^#]*" /etc/apt/sources.list /etc/apt/sources.list.d/*.sources \
		2> /dev/null | grep -oE "[a-z]+://[^ ]+/$1/?( |\$)" | head -n 1 | tr -d ' '
}

look_up() {
	local main security suite key=/usr/share/keyrings/debian-archive-keyring.gpg
	main=$(mirror debian || true)
	main=${main:-https://deb.debian.org/debian}
	security=$(mirror debian-security || true)
	security=${security:-https://deb.debian.org/debian-security}
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$kernels/boot"
	for suite in bullseye bookworm bookworm-backports trixie trixie-backports; do
		echo "deb [signed-by=$key] $main $suite main"
	done > "$apt/sources.list"
	for suite in bullseye-security bookworm-security trixie-security; do
		echo "deb [signed-by=$key] $security $suite main"
	done >> "$apt/sources.list"
	own_apt apt-get update -qq
	own_apt apt-cache pkgnames linux-image- | grep -E '^linux-image-[0-9].*-cloud-amd64$' |
		grep -v unsigned | sort -V > "$built/images"
}

# Newer images are split: the kernel and its modules are in packages beside it.
unpack() {
	local image=$1 release=${1#linux-image-} names=("$1") name file
	for name in "linux-binary-$release" "linux-modules-$release"; do
		if own_apt apt-cache policy "$name" | grep -q 'Candidate: [0-9]'; then names+=("$name"); fi
	done
	(cd "$apt/cache" && own_apt apt-get download -qq "${names[@]}")
	for name in "${names[@]}"; do
		for file in "$apt/cache/${name}"_*.deb; do
			dpkg-deb -x "$file" "$kernels"
			rm "$file"
		done
	done
	for file in "$kernels"/{usr/,}lib/modules/"$release"/vmlinuz; do
		if [ -e "$file" ]; then cp "$file" "$kernels/boot/vmlinuz-$release"; fi
	done
	if [ ! -e "$kernels/boot/vmlinuz-$release" ]; then
		echo "there is no kernel in $image" >&2
		exit 1
	fi
}

for wanted in "$@"; do
	if compgen -G "$kernels/boot/vmlinuz-$wanted*" > /dev/null; then continue; fi
	[ -n "${looked_up:-}" ] || look_up
	looked_up=yes
	if [ "$wanted" = newest ]; then
		image=$(tail -n 1 "$built/images")
	else
		image=$(grep -F "linux-image-$wanted" "$built/images" | tail -n 1 || true)
	fi
	if [ -z "$image" ]; then
		echo "Debian's mirror has no kernel $wanted" >&2
		exit 1
	fi
	[ -e "$kernels/boot/vmlinuz-${image#linux-image-}" ] || unpack "$image"
done

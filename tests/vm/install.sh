#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What `make test-kernels` needs: an emulator, and Debian's own kernels, unpacked into .build/vm
# without being installed. Arguments are the first words of kernel releases ("5.10.", "6.1.");
# "newest" is the newest that Debian has, "here" the one that runs, which needs nothing. Quick when
# all is there; fails when one cannot be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
architecture=amd64
built=$PWD/.build/vm
. tools/packages.sh
. tools/debian_kernels.sh
kernels=$built/kernels
suites=(bullseye bookworm bookworm-backports trixie trixie-backports
	bullseye-security bookworm-security trixie-security)

need /usr/bin/qemu-system-x86_64 qemu-system-x86
need /usr/lib/qemu/virtiofsd qemu-system-common
need /bin/busybox busybox-static
install_needed

for wanted in "$@"; do
	if [ "$wanted" = here ]; then continue; fi
	if compgen -G "$kernels/boot/vmlinuz-$wanted*" > /dev/null; then continue; fi
	[ -n "${looked_up:-}" ] || look_up "${suites[@]}"
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
	[ -e "$kernels/boot/vmlinuz-${image#linux-image-}" ] || unpack "$image" "$kernels"
done

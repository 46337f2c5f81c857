#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What tests/arm64 needs: an emulator of arm64, and Debian's own arm64 kernel, unpacked into
# .build/arm64 without being installed. Quick when all is there; fails when one cannot be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
architecture=arm64
built=$PWD/.build/arm64
. tools/packages.sh
. tools/debian_kernels.sh

need /usr/bin/qemu-system-aarch64 qemu-system-arm
need /bin/busybox busybox-static
install_needed

if ! compgen -G "$built/boot/vmlinuz-*" > /dev/null; then
	look_up trixie
	image=$(grep -F linux-image-6.12 "$built/images" | tail -n 1)
	unpack "$image" "$built"
fi

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What tests/roots needs: an old Debian in .build/roots, made by debootstrap, and a Python 3.11 in it,
# compiled there from the sources of a newer Debian. The first time takes minutes; then it is quick.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/packages.sh
suite=bullseye # glibc 2.31, Python 3.9
sources=bookworm
root=$PWD/.build/roots/$suite
jobs=$(nproc)

packages=()
command -v debootstrap > /dev/null || packages+=(debootstrap)
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || packages+=(debian-archive-keyring)
[ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"

mirror=$(debian_mirror)

make_root() {
	rm -rf "$root"
	mkdir -p "$root"
	debootstrap --variant=minbase \
		--include=ca-certificates,gcc,libc6-dev,libffi-dev,libssl-dev,make,xz-utils,zlib1g-dev \
		"$suite" "$root" "$mirror"
}

# Without optimizations: they take an hour and change no result.
make_python() {
	echo "deb-src $mirror $sources main" > "$root/etc/apt/sources.list.d/$sources.list"
	cat > "$root/make-python" <<-'END'
		set -eu
		rm -rf /python
		mkdir /python
		cd /python
		apt-get update -qq
		apt-get source -qq --download-only python3.11
		tar -xf python3.11_*.orig.tar.* --strip-components=1
		./configure --quiet --prefix=/usr/local --without-static-libpython --disable-test-modules
		make --silent "-j$1"
		make --silent altinstall
		rm -rf /python
	END
	unshare -m sh -c 'mount --make-rprivate / && mount --bind /proc "$0/proc" &&
		mount --bind /dev "$0/dev" && exec chroot "$0" /bin/bash /make-python "$1"' "$root" "$jobs"
}

# step FUNCTION: once; what it says is shown when it fails.
step() {
	local log=$root.$1.log
	[ ! -e "$root.$1" ] || return 0
	set +e
	(
		set -e
		"$1"
	) > "$log" 2>&1
	local code=$?
	set -e
	if [ $code -ne 0 ]; then
		tail -n 30 "$log" >&2
		exit 1
	fi
	touch "$root.$1"
}

mkdir -p "${root%/*}"
step make_root
step make_python

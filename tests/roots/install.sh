#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Systems in .build/roots, made by debootstrap. Without argument an old Debian, with a Python 3.11 that
# is compiled there from the sources of a newer one; with `fresh` a Debian with what the README asks for,
# and nothing else. The first time takes minutes; then it is quick.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/packages.sh
old=bullseye # glibc 2.31, Python 3.9
new=bookworm
old_packages=ca-certificates,gcc,libc6-dev,libffi-dev,libssl-dev,make,xz-utils,zlib1g-dev
new_packages=ca-certificates,curl,git,make,python3
jobs=$(nproc)

packages=()
command -v debootstrap > /dev/null || packages+=(debootstrap)
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || packages+=(debian-archive-keyring)
[ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"

mirror=$(debian_mirror)

make_root() {
	rm -rf "$root"
	mkdir -p "$root"
	debootstrap --variant=minbase "--include=$packages" "$suite" "$root" "$mirror"
}

# Without optimizations: they take an hour and change no result.
make_python() {
	echo "deb-src $mirror $new main" > "$root/etc/apt/sources.list.d/$new.list"
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

suite=$old packages=$old_packages
[ "${1:-}" != fresh ] || suite=$new packages=$new_packages
root=$PWD/.build/roots/$suite
mkdir -p "${root%/*}"
step make_root
[ "$suite" = "$new" ] || step make_python

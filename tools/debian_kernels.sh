# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Debian's kernels, unpacked without being installed, for the install scripts. To be sourced, with
# `architecture` (amd64, arm64) and `built` (where everything goes) set, after tools/packages.sh.
apt=$built/apt

# need FILE PACKAGE: `install_needed` installs the package if the file is not there.
needed=()
need() { [ -e "$1" ] || needed+=("$2"); }
install_needed() { [ ${#needed[@]} -eq 0 ] || install_packages "${needed[@]}"; }

# own_apt PROGRAM WORD...: with sources and lists of our own, and no packages installed, so that the
# system's stay as they are.
own_apt() {
	local program=$1
	shift
	"$program" -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
		-o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$apt/lists" -o Dir::State::status=/dev/null \
		-o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root "$@"
}

# mirror NAME: where the system has it from (debian, debian-security), else where Debian has it.
mirror() {
	local found
	found=$(grep -hoE "^(URIs:|deb )[^#]*" /etc/apt/sources.list /etc/apt/sources.list.d/*.sources \
		2> /dev/null | grep -oE "[a-z]+://[^ ]+/$1/?( |\$)" | head -n 1 | tr -d ' ' || true)
	echo "${found:-https://deb.debian.org/$1}"
}

# look_up SUITE...: writes the names of the images that they have into $built/images, oldest first.
look_up() {
	local suite source
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
	for suite in "$@"; do
		source=debian
		case $suite in *-security) source=debian-security ;; esac
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
			"$(mirror $source) $suite main"
	done > "$apt/sources.list"
	own_apt apt-get update -qq
	own_apt apt-cache pkgnames linux-image- |
		grep -E "^linux-image-[0-9].*-cloud-$architecture\$" | grep -v unsigned | sort -V \
		> "$built/images"
}

# unpack IMAGE DIRECTORY: there its kernel is boot/vmlinuz-RELEASE. Newer images are split: the
# kernel and its modules are in packages beside it.
unpack() {
	local image=$1 to=$2 release=${1#linux-image-} names=("$1") name file
	for name in "linux-binary-$release" "linux-modules-$release"; do
		if own_apt apt-cache policy "$name" | grep -q 'Candidate: [0-9]'; then names+=("$name"); fi
	done
	(cd "$apt/cache" && own_apt apt-get download -qq "${names[@]}")
	mkdir -p "$to/boot"
	for name in "${names[@]}"; do
		for file in "$apt/cache/${name}"_*.deb; do
			dpkg-deb -x "$file" "$to"
			rm "$file"
		done
	done
	for file in "$to"/{usr/,}lib/modules/"$release"/vmlinuz; do
		if [ -e "$file" ]; then cp "$file" "$to/boot/vmlinuz-$release"; fi
	done
	if [ ! -e "$to/boot/vmlinuz-$release" ]; then
		echo "there is no kernel in $image" >&2
		exit 1
	fi
}

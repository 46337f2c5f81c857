# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Packages of Debian and Ubuntu, for the install scripts. To be sourced.

# fetch_package_lists NAME...: where there is no apt-get it says what to install, and ends the script.
fetch_package_lists() {
	if ! command -v apt-get > /dev/null; then
		echo "please install:" "$@" >&2
		exit 1
	fi
	apt-get update -q
}

# add_packages NAME...: install them; the lists are fresh.
add_packages() {
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

# install_packages NAME...: both.
install_packages() {
	fetch_package_lists "$@"
	add_packages "$@"
}

# debian_mirror: where this system has Debian's packages from.
debian_mirror() {
	local found
	found=$(grep -hoE '^(URIs:|deb )[^#]*' /etc/apt/sources.list /etc/apt/sources.list.d/*.sources \
		2> /dev/null | grep -oE '[a-z]+://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true)
	echo "${found:-https://deb.debian.org/debian}"
}

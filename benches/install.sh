#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the benchmarks need beside what tests/install.sh brings: wrk, curl, the load generator, the
# discarding receiver, the Go server, and the Python services in a virtual environment of their own.
# Quick when all is done.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd .. && pwd)
. "$root/tools/packages.sh"
built=$root/.build/bench
mkdir -p "$built"

# program -> package of Debian and Ubuntu that brings it
packages=()
need() { command -v "$1" > /dev/null || packages+=("$2"); }
need wrk wrk
need curl curl
need taskset util-linux
[ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"
for program in cc go nginx "$root/.build/e2e/epoll"; do
	if ! command -v "$program" > /dev/null; then
		echo "$program is missing: run tests/install.sh first" >&2
		exit 1
	fi
done

# stale TARGET SOURCE...: must TARGET be made again?
stale() {
	local target=$1
	shift
	[ ! -e "$target" ] || [ -n "$(find "$@" -type f -newer "$target" -print -quit)" ]
}

for program in load sink; do
	if stale "$built/$program" "load/$program.c"; then
		cc -O2 -Wall -Wextra -pthread -o "$built/$program" "load/$program.c"
	fi
done
if stale "$built/nethttp" servers/nethttp; then
	(cd servers/nethttp && go build -mod=readonly -o "$built/nethttp" .)
	touch "$built/nethttp"
fi
venv=$root/.build/bench-otel
if stale "$venv/installed" requirements.txt; then
	"$root/.venv/bin/python" -m venv --clear "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
	touch "$venv/installed"
fi

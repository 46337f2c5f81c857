#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make .venv with otelauto in it, and exactly what requirements/$1.txt locks: demo or dev. Brings what
# a fresh Debian or Ubuntu machine with Python 3.11 lacks: libbpf, the venv module, Python's headers.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/packages.sh
extra=${1:-demo}

find_python() {
	local candidate
	for candidate in python3 python3.11 python3.12 python3.13 python3.14; do
		if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			echo "$candidate"
			return
		fi
	done
	echo "otelauto needs Python 3.11 or newer; this machine has none on the PATH" >&2
	exit 1
}

missing_packages() {
	"$1" -c 'import ctypes; ctypes.CDLL("libbpf.so.1")' 2>/dev/null || echo libbpf1
	local version
	version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	"$1" -c 'import ensurepip, venv' 2>/dev/null || echo "python$version-venv"
	"$1" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' \
		2>/dev/null || echo "libpython$version-dev"
}

python=$(find_python)
packages=$(missing_packages "$python")
if [ -n "$packages" ]; then
	# shellcheck disable=SC2086
	install_packages $packages
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
pip() {
	.venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
}
pip --require-hashes -r "requirements/$extra.txt"
pip --no-deps --no-build-isolation --no-index --editable .
echo "installed: $PWD/.venv/bin/otelauto"

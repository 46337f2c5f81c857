#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A wheel for every Linux with glibc 2.28 or newer and Python 3.11 or newer, into dist/: with the BPF
# objects, the extension modules, and libbpf. $1 is the machine (x86_64 or aarch64; default: this
# one), $2 another directory than dist/. The same sources give the same bytes, whenever and wherever.
# Needs cargo, which fetches libbpf's sources, and the development environment.
set -euo pipefail
cd "$(dirname "$0")/.."
machine=${1:-$(uname -m)}
python=$PWD/.venv/bin/python
mkdir -p "${2:-dist}"
output=$(cd "${2:-dist}" && pwd)
built=$PWD/.build/wheel
tree=$built/tree-$machine
tag=manylinux_2_28_$machine
# The time in the archive: that of the sources.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

tools/libbpf/fetch.sh
# From the sources alone: what was built in the checkout is left out.
trap 'rm -rf "$tree"' EXIT
rm -rf "$tree"
umask 022
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard -- bpf src docs/man tools/libbpf setup.py \
	pyproject.toml MANIFEST.in README.md LICENSE NOTICE | tar -c --null -T - |
	tar -x --no-same-permissions -C "$tree"
"$python" tools/libbpf/build.py "$built/sources/libbpf-sys" "$tree/src/otelauto" "$machine"
rm -f "$output"/otelauto-*-"$tag".whl
(cd "$tree" && MACHINE=$machine "$python" -m pip wheel . --no-build-isolation --no-deps --no-index \
	--disable-pip-version-check --quiet "--config-settings=--build-option=--plat-name=$tag" \
	-w "$output")
ls "$output"/otelauto-*-"$tag".whl

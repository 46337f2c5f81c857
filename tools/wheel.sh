#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A wheel for every Linux with glibc 2.28 or newer and Python 3.11 or newer, into dist/: with the BPF
# objects, the extension modules, and libbpf. $1 is the machine (x86_64 or aarch64; default: this
# one). Needs cargo, which fetches libbpf's sources, and the development environment.
set -euo pipefail
cd "$(dirname "$0")/.."
machine=${1:-$(uname -m)}
python=$PWD/.venv/bin/python
built=$PWD/.build/wheel
tag=manylinux_2_28_$machine
tree=$built/tree-$machine

tools/libbpf/fetch.sh
# From the sources alone: what was built in the checkout is left out.
rm -rf "$tree"
mkdir -p "$tree" dist
git ls-files -z --cached --others --exclude-standard -- bpf src tools/libbpf setup.py pyproject.toml \
	MANIFEST.in README.md LICENSE NOTICE | tar -c --null -T - | tar -x -C "$tree"
"$python" "$tree/tools/libbpf/build.py" "$built/sources/libbpf-sys" "$tree/src/otelauto" "$machine"
rm -f dist/otelauto-*-"$tag".whl
(cd "$tree" && MACHINE=$machine "$python" -m pip wheel . --no-build-isolation --no-deps --no-index \
	--disable-pip-version-check --quiet "--config-settings=--build-option=--plat-name=$tag" \
	-w "$OLDPWD/dist")
rm -rf "$tree"
ls "$PWD"/dist/otelauto-*-"$tag".whl

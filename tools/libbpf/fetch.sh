#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The sources of libbpf, libelf and zlib, as Cargo.lock pins them, into .build/wheel/sources.
set -euo pipefail
cd "$(dirname "$0")/../.."
sources=$PWD/.build/wheel/sources
[ "$sources/fetched" -nt tools/libbpf/Cargo.lock ] && exit
if ! command -v cargo > /dev/null; then
	echo "cargo is missing: run tests/install.sh first" >&2
	exit 1
fi
mkdir -p "$sources"
cargo vendor --quiet --locked --manifest-path tools/libbpf/Cargo.toml "$sources" > /dev/null
touch "$sources/fetched"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Write requirements/*.txt anew, of pyproject.toml: every package that is installed, with its version
# and the hashes of its files, for every Linux and Python from 3.11. What is locked stays as it is
# where pyproject.toml allows it; with --upgrade the newest of everything is taken. Asks the package
# index.
set -euo pipefail
cd "$(dirname "$0")/.."

# lock NAME WORD...: requirements/NAME.txt
lock() {
	local file=requirements/$1.txt
	shift
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command 'make lock' --no-strip-extras \
		pyproject.toml "$@" --output-file "$file"
}

mkdir -p requirements
# The others have the versions that the tests run with.
lock dev --extra dev "$@"
lock run --constraints requirements/dev.txt "$@"
lock demo --extra demo --extra build --constraints requirements/dev.txt "$@"

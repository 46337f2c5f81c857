#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build the extension modules with gcc under AddressSanitizer and UBSan, in a copy of the sources,
# and run the tests of tests/hot on them. TEST_FUZZ_RUNS says how many random exchanges.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r src tests bpf setup.py pyproject.toml README.md LICENSE NOTICE "$copy"
cd "$copy"
rm -f src/otelauto/hot/*.so
SANITIZE=1 "$python" setup.py -q build_ext --inplace
libraries="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
# The interpreter itself leaks by design; its own allocator would hide what overflows.
LD_PRELOAD=$libraries ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH=$copy/src:$copy \
	"$python" -m pytest -q -p no:cacheprovider --timeout=7200 tests/hot

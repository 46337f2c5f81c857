#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the tests need beside the virtual environment. Idempotent, and quick when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/e2e/install.sh
tools/site/install.sh

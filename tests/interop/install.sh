#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An OpenTelemetry Collector from Go modules, in .build/interop/otelcol. Takes minutes the first
# time (Go 1.25 or newer, or one that may fetch it), and nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
built=$(cd ../.. && pwd)/.build/interop
version=$(sed -n 's/^  version: //p' collector.yml)

[ "$built/otelcol" -nt collector.yml ] && exit
if ! command -v go > /dev/null; then
	echo "please install Go" >&2
	exit 1
fi
mkdir -p "$built/source"
cd "$built/source"
GOBIN=$built/source go install "go.opentelemetry.io/collector/cmd/builder@v$version"
./builder --config "$here/collector.yml"
mv otelcol "$built/otelcol"
touch "$built/otelcol"

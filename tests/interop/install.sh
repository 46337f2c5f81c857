#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An OpenTelemetry Collector and a Prometheus newer than Debian's, from Go modules, in
# .build/interop. Takes minutes the first time (Go 1.26 or newer, or one that may fetch it), and
# nothing when they are there.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
built=$(cd ../.. && pwd)/.build/interop
version=$(sed -n 's/^  version: //p' collector.yml)
prometheus=v0.316.0 # as a module; it calls itself 3.16.0

if ! command -v go > /dev/null; then
	echo "please install Go" >&2
	exit 1
fi
mkdir -p "$built/source"
cd "$built/source"
if [ ! "$built/otelcol" -nt "$here/collector.yml" ]; then
	GOBIN=$built/source go install "go.opentelemetry.io/collector/cmd/builder@v$version"
	./builder --config "$here/collector.yml"
	mv otelcol "$built/otelcol"
	touch "$built/otelcol"
fi
# Without what it would discover targets by: nothing is scraped. -trimpath as the builder has it, so
# that what both need is compiled once.
if [ ! -e "$built/prometheus-$prometheus" ]; then
	GOBIN=$built/source go install -trimpath -ldflags='-s -w' -tags remove_all_sd \
		"github.com/prometheus/prometheus/cmd/prometheus@$prometheus"
	mv prometheus "$built/prometheus-$prometheus"
fi
ln -sf "prometheus-$prometheus" "$built/prometheus"

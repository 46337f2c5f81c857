#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the benchmarks need beside what tests/install.sh brings: wrk, curl, the load generator, the
# discarding receiver, the servers, and for Python, Node.js and Java what OpenTelemetry instruments
# them with, in directories of its own.
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
need npm npm
need javac default-jdk-headless
need mvn maven
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
for program in nethttp http2; do
	if stale "$built/$program" "servers/$program"; then
		(cd "servers/$program" && go build -mod=readonly -o "$built/$program" .)
		touch "$built/$program"
	fi
done
if stale "$built/java/App.class" servers/java; then
	javac -d "$built/java" servers/java/App.java
fi
agent=opentelemetry-javaagent-2.9.0.jar
if [ ! -e "$built/java/$agent" ]; then
	mvn --quiet --batch-mode dependency:copy -DoutputDirectory="$built/java" \
		-Dartifact=io.opentelemetry.javaagent:opentelemetry-javaagent:2.9.0
fi
modules=$built/node
if stale "$modules/installed" servers/node; then
	mkdir -p "$modules"
	cp servers/node/package.json servers/node/package-lock.json "$modules"
	(cd "$modules" && npm ci --no-audit --no-fund --loglevel=error)
	touch "$modules/installed"
fi
venv=$root/.build/bench-otel
if stale "$venv/installed" requirements.txt; then
	"$root/.venv/bin/python" -m venv --clear "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
	touch "$venv/installed"
fi

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the end-to-end tests need beyond Python: toolchains from the distribution where they are
# missing, then the test servers and clients, built into .build/e2e. Quick when all is done.
# The locked versions build with the toolchains of Debian 12 (Go 1.19, Rust 1.63) and newer ones.
set -euo pipefail
cd "$(dirname "$0")"
. ../../tools/packages.sh
built=$(cd ../.. && pwd)/.build/e2e
mkdir -p "$built/java"

# program -> package of Debian and Ubuntu that brings it
packages=()
need() { command -v "$1" > /dev/null || packages+=("$2"); }
need cc gcc
need go golang-go
need node nodejs
need npm npm
need nginx nginx-light
need java default-jre-headless
need javac default-jdk-headless
need mvn maven
need cargo cargo
compgen -G '/usr/sbin/php-fpm*' > /dev/null || packages+=(php-fpm)
need wrk wrk
need h2load nghttp2-client
need nghttpd nghttp2-server
need curl curl
need openssl openssl
need wget wget
need ip iproute2
need prometheus prometheus
need systemd-analyze systemd
[ -e "/usr/lib/$(uname -m)-linux-gnu/libseccomp.so.2" ] || packages+=(libseccomp2)
need groff groff-base
need zsh zsh
need fish fish
[ -e /usr/include/linux/errqueue.h ] || packages+=(libc6-dev)
[ -e /usr/include/microhttpd.h ] || packages+=(libmicrohttpd-dev)

install_missing() {
	fetch_package_lists "${packages[@]}"
	# Debian 12 has a newer cargo under this name; the older one knows only the index on git.
	if apt-cache show cargo-web > /dev/null 2>&1; then
		packages=("${packages[@]/%cargo/cargo-web}")
	fi
	# A package must not start its own nginx: only the tests' one is wanted.
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
		printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
		chmod 755 /usr/sbin/policy-rc.d
	fi
	add_packages "${packages[@]}"
}
[ ${#packages[@]} -eq 0 ] || install_missing

# stale TARGET SOURCE...: must TARGET be made again?
stale() {
	local target=$1
	shift
	[ ! -e "$target" ] || [ -n "$(find "$@" -path '*/node_modules' -prune -o \
		-type f -newer "$target" -print -quit)" ]
}

# What ends with `fi &` goes on beside what follows, and is waited for at the end.
beside=()
if stale "$built/epoll" servers/c; then
	cc -O2 -Wall -Wextra -pthread -o "$built/epoll" servers/c/epoll.c
fi
if stale "$built/microhttpd" servers/c; then
	cc -O2 -Wall -Wextra -o "$built/microhttpd" servers/c/microhttpd.c -lmicrohttpd
fi
if [ ! -e "$built/openssl-1.1" ]; then
	servers/nginx/openssl-1.1.sh "$built/openssl-1.1"
fi &
beside+=($!)
if stale "$built/jetty/Http2.class" servers/jetty; then
	rm -rf "$built/jetty"
	mvn -q -B -f servers/jetty/pom.xml -DoutputDirectory="$built/jetty" \
		org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies
	javac -cp "$built/jetty/*" -d "$built/jetty" servers/jetty/Http2.java
fi &
beside+=($!)
jetty=$!
if stale "$built/java/Server.class" servers/java; then
	javac -d "$built/java" servers/java/Server.java
fi
if stale "$built/client" clients/go install.sh; then
	(cd clients/go && go build -mod=readonly -o "$built/client" . &&
		go build -mod=readonly -o "$built/fetch" ./fetch)
	touch "$built/client"
fi &
beside+=($!)
if stale "$built/go-servers" servers/go install.sh; then
	(cd servers/go && go build -mod=readonly -o "$built/" ./nethttp ./gin ./gorilla ./tlsecho ./h2c ./grpc ./grpcclient \
		./websocket &&
		go build -mod=readonly -ldflags='-s -w' -o "$built/nethttp-stripped" ./nethttp &&
		go build -mod=readonly -buildmode=pie -ldflags='-s -w -linkmode=external' \
			-o "$built/nethttp-pie" ./nethttp)
	touch "$built/go-servers"
fi
if stale "$built/hyper-server" servers/rust; then
	(cd servers/rust && CARGO_TARGET_DIR="$built/cargo" cargo build --quiet --release --locked)
	cp "$built/cargo/release/tonic-server" "$built/cargo/release/tonic-client" "$built/"
	cp "$built/cargo/release/hyper-server" "$built/hyper-server"
fi &
beside+=($!)
if stale "$built/sdk/App.class" servers/sdk/App.java; then
	javac -d "$built/sdk" servers/sdk/App.java
fi
agent=2.20.1
wait $jetty # two Mavens must not fill their repository at the same time
if [ ! -e "$built/sdk/opentelemetry-javaagent-$agent.jar" ]; then
	mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
		-Dartifact="io.opentelemetry.javaagent:opentelemetry-javaagent:$agent" \
		-DoutputDirectory="$built/sdk"
fi
ln -sf "opentelemetry-javaagent-$agent.jar" "$built/sdk/opentelemetry-javaagent.jar"
if stale servers/sdk/node_modules/.package-lock.json servers/sdk/package-lock.json; then
	(cd servers/sdk && npm ci --no-audit --no-fund --loglevel=error)
	touch servers/sdk/node_modules/.package-lock.json
fi &
beside+=($!)
if stale ../compose/node_modules/.package-lock.json ../compose/package-lock.json; then
	(cd ../compose && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
	touch ../compose/node_modules/.package-lock.json
fi &
beside+=($!)
if stale servers/node/node_modules/.package-lock.json servers/node/package-lock.json; then
	(cd servers/node && npm ci --no-audit --no-fund --loglevel=error)
	touch servers/node/node_modules/.package-lock.json
fi &
beside+=($!)
for job in "${beside[@]}"; do
	wait "$job"
done

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# helm, kube-apiserver and etcd from Go modules, in .build/kubernetes. Takes minutes the first time
# (Go 1.26, or one that may fetch it), and nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")"
built=$(cd ../.. && pwd)/.build/kubernetes
helm=v3.21.4

if ! command -v go > /dev/null; then
	echo "please install Go" >&2
	exit 1
fi
mkdir -p "$built"
if [ ! -e "$built/helm-$helm" ]; then
	GOBIN=$built go install -ldflags='-s -w' "helm.sh/helm/v3/cmd/helm@$helm"
	touch "$built/helm-$helm"
fi
if [ ! -e "$built/apiserver" ] || [ server/go.sum -nt "$built/apiserver" ]; then
	(cd server && go build -mod=readonly -ldflags='-s -w' -o "$built/" ./apiserver ./etcd)
	touch "$built/apiserver"
fi

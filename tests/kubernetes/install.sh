#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# helm, kubeconform, kube-apiserver from Go modules and etcd from the distribution, in
# .build/kubernetes. Takes minutes the first time (Go 1.25 or newer), and nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")"
. ../../tools/packages.sh
built=$(cd ../.. && pwd)/.build/kubernetes
helm=v3.19.0 kubeconform=v0.7.0
mkdir -p "$built"
command -v go > /dev/null || { echo "please install Go" >&2; exit 1; }

# installed NAME VERSION PACKAGE: a Go program of that version, built once.
installed() {
	[ -e "$built/$1-$2" ] && return
	GOBIN=$built go install "$3@$2"
	touch "$built/$1-$2"
}
installed helm "$helm" helm.sh/helm/v3/cmd/helm
installed kubeconform "$kubeconform" github.com/yannh/kubeconform/cmd/kubeconform

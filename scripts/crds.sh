#!/usr/bin/env bash
# Writes manifests/crds from the types in api/.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run -q -p weft-cli -- reference crds | while IFS= read -r line; do
  case "$line" in
    '--- # '*) file="manifests/crds/${line#--- # }"; : >"$file" ;;
    *) printf '%s\n' "$line" >>"$file" ;;
  esac
done

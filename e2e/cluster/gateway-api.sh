#!/usr/bin/env bash
# Prints the folder with the definitions (CRDs) of Gateway API, with its experimental ones, from its Go module; for kubectl apply -k.
set -euo pipefail
version=v1.4.0
folder=$(cd / && go mod download -json "sigs.k8s.io/gateway-api@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
echo "$folder/config/crd/experimental"

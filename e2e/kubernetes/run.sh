#!/usr/bin/env bash
# Runs a suite of tests on a Kubernetes: run.sh SUITE [OPTION…], such as run.sh all --only zone. On the cluster of $KUBECONFIG if that is set, otherwise on one of its own,
# which it ends afterwards unless it ran before. Exit code 77: this machine cannot hold a cluster, so nothing was tested.
set -euo pipefail
cd "$(dirname "$0")/../.."
suite=$1
target="${CARGO_TARGET_DIR:-target}"
programs="$target/$(rustc -vV | sed -n 's/^host: //p')/debug"

scripts/setup.sh build
cannot() { echo "e2e: $suite skipped: $1" >&2; exit 77; }

if [ -z "${KUBECONFIG:-}" ]; then
  [ "$(id -u)" = 0 ] || cannot "a cluster of its own needs root"
  scripts/setup.sh cluster || cannot "what a cluster needs is not installed"
  # Before the Rust build: both want all cores.
  e2e/cluster/build.sh >/dev/null
fi
# Builds all programs, those of the test too.
images=$(scripts/images.sh dev)
test=("$programs/weft-e2e-kubernetes" "$suite" --reports "$target/e2e" "${@:2}")

if [ -n "${KUBECONFIG:-}" ]; then
  context=$(kubectl config current-context)
  case "$context" in
    kind-*) for image in "$images"/*.tar; do kind load image-archive --name "${context#kind-}" "$image"; done ;;
    *) echo "e2e: the nodes of $context need the images of $images: load or push them first" >&2 ;;
  esac
  exec "${test[@]}"
fi

export WEFT_CLUSTER_NAME="${WEFT_CLUSTER_NAME:-e2e}"
if ! e2e/cluster/enter.sh true 2>/dev/null; then
  trap e2e/cluster/down.sh EXIT
  e2e/cluster/up.sh || cannot "no cluster could be started on this machine"
fi
e2e/cluster/load.sh "$images"/*.tar
e2e/cluster/enter.sh kubectl apply --server-side -k "$(e2e/cluster/gateway-api.sh)" >/dev/null
WEFT_E2E_CLUSTER="$PWD/e2e/cluster" e2e/cluster/enter.sh "${test[@]}"

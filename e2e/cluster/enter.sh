#!/usr/bin/env bash
# Runs a command (default: a shell) in the running cluster's network, with kubectl on the path and KUBECONFIG set: API
# server, pods and Services are reachable, files are those of this machine.
#   enter.sh [--node N] [COMMAND...]      with --node: inside that node instead, with its mounts and processes
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
need_root
node_pid 1 >/dev/null || die "cluster $name does not run: make cluster"
PATH="$(cat "$state/bin"):$PATH"
export PATH KUBECONFIG="$kubeconfig"
if [ "${1:-}" = --node ]; then
  node=$2; shift 2
  in_node "$node" "$@"
elif [ $# -gt 0 ]; then
  in_network "$@"
else
  in_network "${SHELL:-bash}"
fi

#!/usr/bin/env bash
# Stops or starts one process of a node of the running cluster, as its outage would: daemon.sh stop|start NODE NAME,
# with NAME one of etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd, kubelet, kube-proxy.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
. "$cluster_dir/daemons.sh"
need_root
node_pid "$2" >/dev/null || die "node $2 of cluster $name does not run: make cluster"
bin=$(cat "$state/bin")
eval "$(cat "$state/plan")"
declare -F "start_$3" >/dev/null || die "no process is called $3: see the head of $0"
case "$1" in
  stop) stop_daemon "$2" "$3" ;;
  start) "start_$3" "$2" ;;
  *) die "what to do with $3 is stop or start, not $1" ;;
esac

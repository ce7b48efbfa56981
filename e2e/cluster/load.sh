#!/usr/bin/env bash
# Imports image archives into every node of the running cluster: load.sh FILE...
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
need_root
node_pid 1 >/dev/null || die "cluster $name does not run: make cluster"
for folder in "$state"/node[1-9]; do
  for file in "$@"; do
    in_node "${folder##*/node}" ctr -n k8s.io images import "$(readlink -f "$file")" >/dev/null
  done
done

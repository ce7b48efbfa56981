#!/usr/bin/env bash
# Ends the cluster and removes every trace of it. Ends one process a node: the kernel ends the rest of its PID namespace,
# and interfaces, rules and mounts go with the other namespaces.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
[ -e "$state" ] || exit 0
need_root

for folder in "$state"/node[1-9]; do
  [ -e "$folder" ] || continue
  if pid=$(node_pid "${folder##*/node}"); then
    kill -KILL "$pid"
    while [ -d "/proc/$pid" ]; do sleep 0.05; done
  fi
done

# Folders of containers are empty now; a folder that is being emptied by the kernel needs another moment.
for root in $(cgroup_roots); do
  for _ in $(seq 100); do
    [ -d "$root/$name" ] || break
    find "$root/$name" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.05
  done
done
# What kubelet has set for the whole machine.
[ ! -e "$state/sysctls" ] || sysctl -q -p "$state/sysctls" >/dev/null
rm -rf "$state"
# Mount points that the machine did not have before, the innermost first. Not while another cluster runs: to remove one
# would take away what is mounted there.
if [ -e "$clusters/mount-points" ] && ! ls -d "$clusters"/*/node1 >/dev/null 2>&1; then
  tac "$clusters/mount-points" | while read -r folder; do rmdir "$folder" 2>/dev/null || true; done
  rm -r "$clusters"
fi

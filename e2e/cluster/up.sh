#!/usr/bin/env bash
# Starts a genuine Kubernetes on this machine: each node in namespaces of its own, nothing to the outside. Its settings are
# the variables in settings.sh. Ready in 5 to 15 s once its programs are built; a cluster that runs is left as it is.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
. "$cluster_dir/daemons.sh"
need_root
if node_pid 1 >/dev/null; then
  echo "cluster: $name runs already" >&2
  exit 0
fi
bin=$("$cluster_dir/build.sh")
plan=$("$bin/nodetool" ranges "$pod_range" "$service_range" "$node_range" "$nodes")
eval "$plan"
export bin plan

main() {
  # What a machine that was switched off has left.
  "$cluster_dir/down.sh"
  mkdir -p "$state/log"
  echo "$bin" >"$state/bin"
  printf '%s\n' "$plan" >"$state/plan"
  trap '[ $? = 0 ] || echo "cluster: not started; see $state/log, then make cluster-down" >&2' EXIT
  local certificates=() node
  for node in "${!node_address[@]}"; do certificates+=("node$node=${node_address[$node]}"); done
  "$bin/nodetool" certs "$credentials" "$name" "$kubernetes_address" "${certificates[@]}"
  remember_machine
  "$cluster_dir/../../scripts/oci-image.sh" "$cluster_dir/Dockerfile" "$bin" "$pause_image" "$state/pause.tar"

  start_node 1
  start_etcd 1
  start_kube-apiserver 1
  start_containerd 1
  load_images 1
  wait_for 120 "the API server" api_ready
  # Started before the API server is ready, these would wait out a back-off.
  start_kube-controller-manager 1
  start_kube-scheduler 1
  start_kubelet 1
  start_kube-proxy 1
  sed "s|@BIN@|$bin|; s|@DNS@|$dns_address|; s|@IMAGE@|$pause_image|" "$cluster_dir/coredns.yaml" | kubectl apply -f - >/dev/null
  for node in "${!node_address[@]}"; do
    [ "$node" != 1 ] || continue
    # Nodes get their ranges of pods in the order in which they register.
    wait_for 60 "node $((node - 1)) to register" has_range $((node - 1))
    start_node "$node"
    start_containerd "$node"
    load_images "$node"
    start_kubelet "$node"
    start_kube-proxy "$node"
  done
  wait_for 120 "all nodes to be ready" all_ready
  kubectl -n kube-system rollout status deployment/coredns --timeout 120s >/dev/null
  echo "cluster: $name is ready. A shell in it, with kubectl: e2e/cluster/enter.sh; its end: make cluster-down" >&2
}

# Keeps what has to be put back: kubelet sets some values of the whole machine, and mount points have to exist on it.
remember_machine() {
  local folder part
  sysctl -e vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys \
    kernel.keys.root_maxbytes | tr -d ' ' >"$state/sysctls"
  printf '%s\n' /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/log/pods /var/log/containers /etc/cni/net.d \
    /opt/cni/bin /opt/containerd /usr/libexec/kubernetes >"$state/node-folders"
  while read -r folder; do
    part=
    for step in ${folder//\// }; do
      part="$part/$step"
      [ -d "$part" ] || { echo "$part" >>"$clusters/mount-points"; mkdir "$part"; }
    done
  done <"$state/node-folders"
}

# Makes a node's namespaces and waits until node.sh has laid them out.
start_node() {
  local node=$1 own="$state/node$1" parent pid root controller
  mkdir -p "$own"
  setsid unshare --net --mount --pid --uts --ipc --fork --mount-proc "$cluster_dir/node.sh" "$node" \
    >"$state/log/node$node-init.log" 2>&1 </dev/null &
  parent=$!
  while ! pid=$(tr -d ' ' <"/proc/$parent/task/$parent/children") || [ -z "$pid" ]; do
    kill -0 "$parent" 2>/dev/null || die "node $node: $(cat "$state/log/node$node-init.log")"
    sleep 0.02
  done
  echo "$pid $(start_time "$pid")" >"$own/init"
  if [ "$node" != 1 ]; then
    ip link add "weft-n$node" netns "$(node_pid 1)" type veth peer name eth0 netns "$pid"
    in_node 1 ip link set "weft-n$node" master lan up
  fi
  until [ -e "$own/ready" ]; do
    kill -0 "$pid" 2>/dev/null || die "node $node: $(cat "$state/log/node$node-init.log")"
    sleep 0.02
  done
  # Kubelet wants its cgroup to exist in every hierarchy.
  for root in $(cgroup_roots); do
    mkdir -p "$root/$name/node$node"
    if [ -e "$root/cgroup.controllers" ]; then
      for controller in $(cat "$root/cgroup.controllers"); do
        for part in "$root" "$root/$name"; do echo "+$controller" >"$part/cgroup.subtree_control" || true; done
      done
    fi
    # With v1 a new cpuset is empty, and nothing can run in it.
    for file in cpuset.cpus cpuset.mems; do
      [ -s "$root/$file" ] && [ -e "$root/$name/node$node/$file" ] || continue
      cat "$root/$file" >"$root/$name/$file"
      cat "$root/$file" >"$root/$name/node$node/$file"
    done
  done
}

load_images() {
  wait_for 60 "containerd" in_node "$1" ctr version
  in_node "$1" ctr -n k8s.io images import "$state/pause.tar" >/dev/null
}

wait_for() {
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || die "gave up waiting for $what"
    sleep 0.1
  done
}

api_ready() { kubectl get --raw /readyz; }
has_range() { kubectl get node "node$1" -o 'jsonpath={.spec.podCIDR}' | grep -q .; }
all_ready() { [ "$(kubectl get nodes --no-headers | awk '$2 == "Ready"' | wc -l)" = "$nodes" ]; }

main

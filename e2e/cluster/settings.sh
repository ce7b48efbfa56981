# Settings and helpers of the cluster's scripts; sourced by them. Every interface lives in a network namespace without an
# uplink: no address here is routed anywhere.

cluster_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cluster_cache="${XDG_CACHE_HOME:-$HOME/.cache}/weft"

# Another name is another cluster beside the first one.
name="${WEFT_CLUSTER_NAME:-weft}"
clusters="$cluster_cache/clusters"
state="$clusters/$name"
nodes="${WEFT_CLUSTER_NODES:-1}"
proxy_mode="${WEFT_CLUSTER_PROXY_MODE:-iptables}" # or nftables
pod_range="${WEFT_CLUSTER_POD_RANGE:-198.18.0.0/17}"
service_range="${WEFT_CLUSTER_SERVICE_RANGE:-198.19.0.0/16}"
node_range="${WEFT_CLUSTER_NODE_RANGE:-198.18.255.0/24}"

credentials="$state/credentials"
kubeconfig="$credentials/admin.kubeconfig"
pause_image=weft-cluster.local/pause:1

die() { echo "cluster: $*" >&2; exit 1; }

need_root() { [ "$(id -u)" -eq 0 ] || die "a node needs root: run this as root, or set KUBECONFIG to use a cluster of yours"; }

# A node's first process, if it is still the one that we started: numbers are given again.
node_pid() {
  local pid started
  read -r pid started 2>/dev/null <"$state/node$1/init" || return 1
  [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

# When a process was started, in ticks since the machine was. The command in field 2 may hold blanks.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# Runs a command inside a node: its network, mounts, processes and host name.
in_node() {
  local node=$1; shift
  nsenter -t "$(node_pid "$node")" --net --mount --pid --uts -- "$@"
}

# Runs a command in the first node's network, with files and working folder of the caller.
in_network() { nsenter -t "$(node_pid 1)" --net -- "$@"; }

kubectl() { in_network "$bin/kubectl" --kubeconfig "$kubeconfig" "$@"; }

# One folder a hierarchy with cgroup v1, one in all with v2.
cgroup_roots() {
  if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
    echo /sys/fs/cgroup
  else
    grep -E ' - cgroup2? ' /proc/self/mountinfo | cut -d' ' -f5
  fi
}

#!/usr/bin/env bash
# First process of a node's namespaces: node.sh N. Lays out mounts and network, then turns into an init that reaps
# children. Called by up.sh, with the plan of addresses in its environment.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
eval "$plan"
node=$1 own="$state/node$1" address=${node_address[$1]}

hostname "node$node"
# Copies of other programs' named network namespaces came along and would keep those alive. Mounts are still private:
# the machine keeps its own.
umount -R /run/netns 2>/dev/null || true
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/containerd /run/lock
mount --bind /run/netns /run/netns
mount --make-shared /run/netns
# The usual paths on folders of the node's own, so that ordinary manifests with hostPath volumes (a CNI installer's) work
# and touch nothing of the machine.
while read -r folder; do
  mkdir -p "$own/root$folder"
  mount --bind "$own/root$folder" "$folder"
done <"$state/node-folders"

ip link set lo up
if [ "$node" = 1 ]; then
  # A bridge, since not every kernel has dummy devices. The other nodes join it.
  ip link add lan type bridge
  device=lan
else
  device=eth0
  while ! ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done # up.sh moves it here
fi
ip link set "$device" up
ip addr add "$address/$node_bits" dev "$device"
# A process on the node itself (the API server calling a webhook) needs a route before kube-proxy's rule in OUTPUT can
# rewrite a Service's address.
ip route add "$service_range" dev "$device" src "$address"
for other in "${!node_address[@]}"; do
  [ "$other" = "$node" ] || ip route add "${node_pods[$other]}" via "${node_address[$other]}"
done
# What is neither node, pod nor Service is refused at once rather than lost.
ip route add unreachable default metric 4294967295
sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1

cp "${WEFT_CLUSTER_CNI_PLUGINS:-/usr/lib/cni}"/* /opt/cni/bin/
# No masquerading: between nodes a pod keeps its own address. Hairpin: a pod can reach itself by its Service.
cat >/etc/cni/net.d/10-bridge.conflist <<JSON
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "dataDir": "/run/cni-addresses",
        "ranges": [[{ "subnet": "${node_pods[$node]}" }]], "routes": [{ "dst": "0.0.0.0/0" }]
      }
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
JSON
touch "$own/ready"
exec "$bin/nodetool" init

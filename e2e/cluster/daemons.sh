# The processes of a node, one function each; sourced after settings.sh and the plan. Each takes the node's number.

# Starts a command inside a node, detached from the caller's terminal, its number (as the node sees it) and output kept.
daemon() {
  local node=$1 what=$2; shift 2
  local files="$state/log/node$node-$what"
  setsid nsenter -t "$(node_pid "$node")" --net --mount --pid --uts -- \
    sh -c 'echo $$ >"$0.pid"; exec "$@"' "$files" "$@" >>"$files.log" 2>&1 </dev/null &
}

start_etcd() {
  # The data lives as long as the test: nothing has to survive a power cut.
  daemon "$1" etcd "$bin/etcd" --name "$name" --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster "$name=http://127.0.0.1:2380"
}

start_kube-apiserver() {
  # Node,RBAC and NodeRestriction as in clusters at large. Loopback is refused as advertised address.
  daemon "$1" kube-apiserver "$bin/kube-apiserver" \
    --advertise-address "${node_address[$1]}" --bind-address 0.0.0.0 --secure-port 6443 \
    --etcd-servers http://127.0.0.1:2379 --service-cluster-ip-range "$service_range" \
    --client-ca-file "$credentials/ca.crt" \
    --tls-cert-file "$credentials/apiserver.crt" --tls-private-key-file "$credentials/apiserver.key" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$credentials/sa.pub" --service-account-signing-key-file "$credentials/sa.key" \
    --kubelet-client-certificate "$credentials/apiserver-kubelet-client.crt" \
    --kubelet-client-key "$credentials/apiserver-kubelet-client.key" \
    --kubelet-certificate-authority "$credentials/ca.crt" --kubelet-preferred-address-types InternalIP \
    --requestheader-client-ca-file "$credentials/front-proxy-ca.crt" \
    --requestheader-allowed-names front-proxy-client --requestheader-username-headers X-Remote-User \
    --requestheader-group-headers X-Remote-Group --requestheader-extra-headers-prefix X-Remote-Extra- \
    --proxy-client-cert-file "$credentials/front-proxy-client.crt" \
    --proxy-client-key-file "$credentials/front-proxy-client.key" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
    --delete-collection-workers 16 --shutdown-delay-duration 0s --profiling=false
}

start_kube-controller-manager() {
  # The default of 20 requests a second throttles its own start by about 5 s.
  daemon "$1" kube-controller-manager "$bin/kube-controller-manager" \
    --kubeconfig "$credentials/controller-manager.kubeconfig" --leader-elect=false \
    --kube-api-qps 300 --kube-api-burst 600 --use-service-account-credentials \
    --service-account-private-key-file "$credentials/sa.key" --root-ca-file "$credentials/ca.crt" \
    --cluster-signing-cert-file "$credentials/ca.crt" --cluster-signing-key-file "$credentials/ca.key" \
    --allocate-node-cidrs --cluster-cidr "$pod_range" --node-cidr-mask-size 24 \
    --service-cluster-ip-range "$service_range" --bind-address 127.0.0.1 --profiling=false
}

start_kube-scheduler() {
  daemon "$1" kube-scheduler "$bin/kube-scheduler" --kubeconfig "$credentials/scheduler.kubeconfig" \
    --leader-elect=false --kube-api-qps 300 --kube-api-burst 600 --bind-address 127.0.0.1 --profiling=false
}

start_containerd() {
  # Without restrict_oom_score_adj every sandbox fails where root lacks CAP_SYS_RESOURCE.
  cat >"$state/node$1/containerd.toml" <<TOML
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause_image"
  stream_server_address = "127.0.0.1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
TOML
  daemon "$1" containerd containerd --config "$state/node$1/containerd.toml"
}

start_kubelet() {
  # Images are imported by hand: a collected one would not come back. No resolver of the machine's is reachable.
  : >"$state/node$1/resolv.conf"
  cat >"$state/node$1/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$name/node$1
failCgroupV1: false
failSwapOn: false
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $credentials/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $credentials/node-node$1.crt
tlsPrivateKeyFile: $credentials/node-node$1.key
clusterDomain: cluster.local
clusterDNS: [$dns_address]
resolvConf: $state/node$1/resolv.conf
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 200Mi, imagefs.available: 200Mi, nodefs.inodesFree: "1%"}
maxPods: 200
enableServer: true
oomScoreAdj: 0
nodeStatusUpdateFrequency: 5s
syncFrequency: 20s
kubeAPIQPS: 100
kubeAPIBurst: 200
YAML
  daemon "$1" kubelet "$bin/kubelet" --config "$state/node$1/kubelet.yaml" \
    --kubeconfig "$credentials/node-node$1.kubeconfig" --hostname-override "node$1" \
    --node-ip "${node_address[$1]}" --root-dir /var/lib/kubelet --v=2
}

start_kube-proxy() {
  # The conntrack settings are read-only outside the machine's first network namespace: 0 leaves them alone.
  daemon "$1" kube-proxy "$bin/kube-proxy" --kubeconfig "$credentials/kube-proxy.kubeconfig" \
    --hostname-override "node$1" --proxy-mode "$proxy_mode" --cluster-cidr "$pod_range" --oom-score-adj 0 \
    --conntrack-max-per-core 0 --conntrack-min 0 \
    --conntrack-tcp-timeout-established 0s --conntrack-tcp-timeout-close-wait 0s --v=2
}

# Ends one process of a node and waits until it has gone: stop_daemon NODE WHAT.
stop_daemon() {
  local pid
  pid=$(cat "$state/log/node$1-$2.pid")
  in_node "$1" sh -c 'kill "$0"; while kill -0 "$0" 2>/dev/null; do sleep 0.05; done' "$pid"
}

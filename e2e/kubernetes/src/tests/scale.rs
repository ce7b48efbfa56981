//! The control plane with a large cluster to watch: real objects in the real API server, for which no node runs anything.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE, until};
use crate::manifests;
use crate::mesh::{CONTROL_PLANE, Mesh, SYSTEM};
use crate::report::Test;
use crate::tests::tests;

const NAMESPACE: &str = "weft-scale";
const NODES: usize = 50;
const SERVICES: usize = 1_000;
const PODS: usize = 5_000;
/// Requests to the API server at a time.
const AT_A_TIME: usize = 32;

pub(crate) fn tests() -> Vec<Test<Mesh>> {
    tests![
        #[essential]
        measures_an_empty_mesh,
        #[essential]
        fills_the_cluster,
        configures_a_new_sidecar_among_5000_pods,
        starts_a_control_plane_among_5000_pods,
        follows_500_pods_that_become_unready,
        empties_the_cluster,
    ]
}

async fn measures_an_empty_mesh(mesh: &Mesh) -> anyhow::Result<()> {
    empties_the_cluster(mesh).await?;
    mesh.cluster.apply(&manifests::meshed_namespace(NAMESPACE)).await?;
    new_sidecar(mesh, "empty").await
}

async fn fills_the_cluster(mesh: &Mesh) -> anyhow::Result<()> {
    let cluster = &mesh.cluster;
    heartbeat(cluster).await?;
    let before = Usage::of_control_plane(cluster).await?;
    let started = Instant::now();
    let services = cluster.api::<Service>(NAMESPACE);
    each(SERVICES, async |number| {
        let service = object(json!({
            "metadata": {
                "name": format!("service-{number}"),
                // What kube-proxy costs is not the question.
                "labels": { "service.kubernetes.io/service-proxy-name": "none" },
            },
            "spec": {
                "selector": { "app": format!("app-{number}") },
                "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http" }],
            },
        }))?;
        services.create(&PostParams::default(), &service).await.map(drop).context("create a service")
    })
    .await?;
    let pods = cluster.api::<Pod>(NAMESPACE);
    each(PODS, async |number| {
        let pod = object(json!({
            "metadata": {
                "name": pod_name(number),
                "labels": { "app": format!("app-{}", number % SERVICES), "weft.mesh/inject": "disabled" },
                "annotations": { "weft.mesh/injected": manifests::VERSION },
            },
            "spec": {
                "nodeName": node_name(number % NODES),
                "terminationGracePeriodSeconds": 0,
                "tolerations": [{ "operator": "Exists" }],
                "containers": [{ "name": "main", "image": "none" }],
            },
        }))?;
        pods.create(&PostParams::default(), &pod).await.context("create a pod")?;
        set_ready(cluster, number, true).await
    })
    .await?;
    until(PATIENCE, "the EndpointSlices are complete", async || {
        Ok((ready_endpoints(cluster).await? >= PODS).then_some(()))
    })
    .await?;
    knows_ready(mesh, PODS).await?;
    let filled = started.elapsed();
    // The source is asked through the same API server that all of this has kept busy.
    let after = settled_usage(cluster).await?;
    println!("    | {SERVICES} Services and {PODS} ready pods created in | {:.0} s |", filled.as_secs_f64());
    println!("    | CPU of the control plane for it | {:.1} s |", after.cpu_seconds - before.cpu_seconds);
    println!(
        "    | memory of the control plane before, after | {:.0} MiB, {:.0} MiB |",
        before.mebibytes, after.mebibytes
    );
    Ok(())
}

async fn configures_a_new_sidecar_among_5000_pods(mesh: &Mesh) -> anyhow::Result<()> {
    new_sidecar(mesh, "full").await
}

async fn starts_a_control_plane_among_5000_pods(mesh: &Mesh) -> anyhow::Result<()> {
    let started = Instant::now();
    mesh.cluster.restart(SYSTEM, CONTROL_PLANE, "app.kubernetes.io/name=weft-control-plane").await?;
    let took = started.elapsed();
    let usage = settled_usage(&mesh.cluster).await?;
    println!("    | a new control plane serves, and the old one has gone, after | {:.1} s |", took.as_secs_f64());
    println!("    | its CPU until then, its memory | {:.1} s, {:.0} MiB |", usage.cpu_seconds, usage.mebibytes);
    Ok(())
}

async fn follows_500_pods_that_become_unready(mesh: &Mesh) -> anyhow::Result<()> {
    let cluster = &mesh.cluster;
    let before = Usage::of_control_plane(cluster).await?;
    each(500, async |number| set_ready(cluster, number, false).await).await?;
    until(PATIENCE, "the EndpointSlices say so", async || {
        Ok((ready_endpoints(cluster).await? <= PODS - 500 + 2).then_some(()))
    })
    .await?;
    knows_ready(mesh, PODS - 500).await?;
    let after = settled_usage(cluster).await?;
    println!(
        "    | CPU of the control plane for 500 pods that become unready | {:.2} s |",
        after.cpu_seconds - before.cpu_seconds
    );
    Ok(())
}

async fn empties_the_cluster(mesh: &Mesh) -> anyhow::Result<()> {
    let pods = mesh.cluster.api::<Pod>(NAMESPACE);
    let now = DeleteParams::default().grace_period(0);
    // One collection of so many takes the API server too long.
    let names: Vec<_> =
        pods.list_metadata(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any).collect();
    each(names.len(), async |number| match pods.delete(&names[number], &now).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error).context("delete a pod"),
    })
    .await?;
    let nodes = mesh.cluster.global::<Node>();
    nodes.delete_collection(&DeleteParams::default(), &ListParams::default().labels("weft.mesh/scale")).await?;
    mesh.cluster.delete_namespace(NAMESPACE).await
}

/// How long a pod takes from `kubectl apply` until it is ready: its application starts when the sidecar has certificate and
/// configuration.
async fn new_sidecar(mesh: &Mesh, name: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    mesh.cluster.apply(&manifests::client(NAMESPACE, name, 0, "http://service-0/")).await?;
    mesh.cluster.rolled_out(NAMESPACE, name).await?;
    let took = started.elapsed();
    let pod = mesh.cluster.pod(NAMESPACE, &format!("app={name}")).await?.name_any();
    let status = mesh.cluster.api::<Pod>(NAMESPACE).get(&pod).await?.status.unwrap_or_default();
    ensure!(status.init_container_statuses.unwrap_or_default().iter().all(|c| c.restart_count == 0), "{pod} restarted");
    println!("    | a new pod is applied, injected, configured and ready after | {:.1} s |", took.as_secs_f64());
    Ok(())
}

fn node_name(number: usize) -> String {
    format!("scale-{number}")
}

fn pod_name(number: usize) -> String {
    format!("pod-{number}")
}

/// An object of the API from what would be written as YAML.
fn object<K: DeserializeOwned>(json: Value) -> anyhow::Result<K> {
    serde_json::from_value(json).context("an object of the API")
}

/// Does something with each number, many at a time.
async fn each(count: usize, work: impl AsyncFn(usize) -> anyhow::Result<()>) -> anyhow::Result<()> {
    stream::iter(0..count).map(|number| work(number)).buffer_unordered(AT_A_TIME).try_collect::<()>().await
}

/// Makes the nodes, and keeps saying that they live until the program ends: the pods of dead nodes are not ready.
async fn heartbeat(cluster: &Cluster) -> anyhow::Result<()> {
    const PERIOD: Duration = Duration::from_secs(10);
    let nodes = cluster.global::<Node>();
    each(NODES, async |number| {
        let name = node_name(number);
        let node = object(json!({
            "metadata": { "name": name, "labels": { "weft.mesh/scale": "true", "kubernetes.io/os": "linux" } },
            "spec": { "taints": [{ "key": "weft.mesh/scale", "effect": "NoSchedule" }] },
        }))?;
        nodes.create(&PostParams::default(), &node).await.context("create a node")?;
        let now = k8s_openapi::jiff::Timestamp::now();
        let ready = json!({ "status": {
            "conditions": [{ "type": "Ready", "status": "True", "reason": "Scale", "lastHeartbeatTime": now, "lastTransitionTime": now }],
            "capacity": { "pods": "1000", "cpu": "64", "memory": "64Gi" },
            "allocatable": { "pods": "1000", "cpu": "64", "memory": "64Gi" },
        } });
        nodes.patch_status(&name, &PatchParams::default(), &Patch::Strategic(ready)).await.map(drop).context("a node's status")
    })
    .await?;
    renew(cluster).await?;
    let cluster = cluster.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(PERIOD).await;
            if let Err(error) = renew(&cluster).await {
                eprintln!("    a node's lease: {error:#}");
            }
        }
    });
    Ok(())
}

async fn renew(cluster: &Cluster) -> anyhow::Result<()> {
    let leases = cluster.api::<Lease>("kube-node-lease");
    for number in 0..NODES {
        let name = node_name(number);
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
            "spec": {
                "holderIdentity": name, "leaseDurationSeconds": 40,
                "renewTime": format!("{:.6}", k8s_openapi::jiff::Timestamp::now()),
            },
        });
        let apply = PatchParams::apply("weft-e2e").force();
        leases.patch(&name, &apply, &Patch::Apply(lease)).await.context("renew a node's lease")?;
    }
    Ok(())
}

async fn set_ready(cluster: &Cluster, number: usize, ready: bool) -> anyhow::Result<()> {
    // Data only: nothing is sent there.
    let address = format!("198.18.{}.{}", 128 + number / 250, 1 + number % 250);
    let status = if ready { "True" } else { "False" };
    let now = k8s_openapi::jiff::Timestamp::now();
    let patch = json!({ "status": {
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
        "conditions": [
            { "type": "Ready", "status": status, "lastTransitionTime": now },
            { "type": "ContainersReady", "status": status, "lastTransitionTime": now },
        ],
    } });
    let pods = cluster.api::<Pod>(NAMESPACE);
    let patch = Patch::Strategic(patch);
    pods.patch_status(&pod_name(number), &PatchParams::default(), &patch).await.map(drop).context("a pod's status")
}

async fn ready_endpoints(cluster: &Cluster) -> anyhow::Result<usize> {
    let slices = cluster.api::<EndpointSlice>(NAMESPACE).list(&ListParams::default().match_any()).await?;
    let endpoints = slices.items.iter().flat_map(|slice| &slice.endpoints);
    Ok(endpoints.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true))).count())
}

/// Waits until the control plane itself says that its Services have just so many ready endpoints.
async fn knows_ready(mesh: &Mesh, pods: usize) -> anyhow::Result<()> {
    until(PATIENCE, &format!("the control plane knows {pods} ready endpoints"), async || {
        let status: Value = serde_json::from_str(&mesh.weft(&["status", "--output", "json"]).await?)?;
        let services = status["services"].as_array().context("a status without services")?;
        let ready = services.iter().filter(|service| service["namespace"] == NAMESPACE);
        let ready: u64 = ready.filter_map(|service| service["ready"].as_u64()).sum();
        ensure!(ready == pods as u64, "it knows {ready}");
        Ok(Some(()))
    })
    .await
}

/// What the control plane has used, as its node's kubelet counts it.
struct Usage {
    cpu_seconds: f64,
    mebibytes: f64,
}

impl Usage {
    async fn of_control_plane(cluster: &Cluster) -> anyhow::Result<Self> {
        let pod = cluster.pod(SYSTEM, "app.kubernetes.io/name=weft-control-plane").await?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("the control plane has a node")?;
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let summary: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", &path], "").await?)?;
        let pods = summary["pods"].as_array().context("a summary of pods")?;
        let own =
            pods.iter().find(|p| p["podRef"]["name"] == pod.name_any()).context("the kubelet does not know it yet")?;
        let nanoseconds = own["cpu"]["usageCoreNanoSeconds"].as_f64().context("no CPU is counted yet")?;
        let bytes = own["memory"]["workingSetBytes"].as_f64().context("no memory is counted yet")?;
        Ok(Self { cpu_seconds: nanoseconds / 1e9, mebibytes: bytes / f64::from(1 << 20) })
    }
}

/// What it has used once it has nothing more to do. The kubelet looks every 10 s or so.
async fn settled_usage(cluster: &Cluster) -> anyhow::Result<Usage> {
    const LOOK: Duration = Duration::from_secs(25);
    let mut last = None;
    until(PATIENCE, "the control plane has nothing to do", async || {
        let now = Usage::of_control_plane(cluster).await?;
        let idle = last.replace(now.cpu_seconds).is_some_and(|before: f64| now.cpu_seconds - before < 0.5);
        if !idle {
            tokio::time::sleep(LOOK).await;
        }
        Ok(idle.then_some(now))
    })
    .await
}

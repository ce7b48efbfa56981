//! Everything that is replaced or restarted in a cluster's daily life, under load: no call may fail.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kube::ResourceExt;
use weft_sandbox::Capture;

use crate::cluster::{PATIENCE, until};
use crate::load::Load;
use crate::manifests;
use crate::mesh::{CONTROL_PLANE, Mesh, SYSTEM};
use crate::report::Test;
use crate::tests::tests;

/// Those that any cluster allows, and what ends them.
pub(crate) fn tests() -> (Vec<Test<Mesh>>, Vec<Test<Mesh>>) {
    let tests = tests![
        #[essential]
        runs_the_shop,
        fails_no_call_during_a_rolling_restart_of_every_service,
        fails_no_call_during_a_rolling_restart_of_the_control_plane,
        fails_no_call_while_there_is_no_control_plane_for_a_minute,
        fails_no_call_while_the_webhook_is_down_and_creates_pods_afterwards,
        recovers_from_an_application_that_crashes,
    ];
    (tests, tests![ends_the_shop])
}

/// Those that stop processes of a node: on a cluster of one's own only.
pub(crate) fn tests_of_the_node() -> Vec<Test<Mesh>> {
    tests![
        shows_nothing_of_calls_on_the_wire,
        gets_through_node_rules_that_admit_only_target_ports,
        fails_no_call_during_a_restart_of_kube_proxy,
        fails_no_call_while_there_is_no_api_server_for_half_a_minute,
        goes_on_after_a_sidecar_was_killed,
    ]
}

const NAMESPACE: &str = "shop";
const SHOP: &str = include_str!("../../../../manifests/samples/kubernetes/shop.yaml");
const SERVICES: &str = include_str!("../../../../manifests/samples/shop/services.yaml");
const ROUTES: &str = include_str!("../../../../manifests/samples/shop/routes.yaml");
const TRAFFIC: &str = include_str!("../../../../manifests/samples/shop/traffic.yaml");
const SECURITY: &str = include_str!("../../../../manifests/samples/shop/security.yaml");

/// The shop's workloads, and their labels.
const WORKLOADS: [(&str, &str); 8] = [
    ("web", "app=web"),
    ("catalog", "app=catalog"),
    ("cart", "app=cart"),
    ("payments", "app=payments"),
    ("reviews-v1", "app=reviews,version=v1"),
    ("reviews-v2", "app=reviews,version=v2"),
    ("notifications", "app=notifications"),
    ("queue", "app=queue"),
];

pub(crate) async fn runs_the_shop(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await?;
    for manifests in [SHOP, SERVICES, ROUTES, TRAFFIC, SECURITY] {
        mesh.cluster.apply(manifests).await?;
    }
    for (name, _) in WORKLOADS {
        mesh.cluster.rolled_out(NAMESPACE, name).await?;
    }
    mesh.cluster.rolled_out(NAMESPACE, "loadgen").await?;
    settled_load(mesh).await.map(drop)
}

async fn fails_no_call_during_a_rolling_restart_of_every_service(mesh: &Mesh) -> anyhow::Result<()> {
    let load = settled_load(mesh).await?;
    for (name, selector) in WORKLOADS {
        load.undisturbed_by(&format!("a rolling restart of {name}"), mesh.cluster.restart(NAMESPACE, name, selector))
            .await?;
    }
    Ok(())
}

async fn fails_no_call_during_a_rolling_restart_of_the_control_plane(mesh: &Mesh) -> anyhow::Result<()> {
    let load = settled_load(mesh).await?;
    let restart = mesh.cluster.restart(SYSTEM, CONTROL_PLANE, "app.kubernetes.io/name=weft-control-plane");
    load.undisturbed_by("a rolling restart of the control plane", restart).await.map(drop)
}

async fn fails_no_call_while_there_is_no_control_plane_for_a_minute(mesh: &Mesh) -> anyhow::Result<()> {
    let load = settled_load(mesh).await?;
    load.undisturbed_by("an outage of the control plane", async {
        mesh.cluster.scale(SYSTEM, CONTROL_PLANE, 0).await?;
        tokio::time::sleep(Duration::from_secs(60)).await;
        mesh.cluster.scale(SYSTEM, CONTROL_PLANE, 1).await
    })
    .await?;
    // And what changes afterwards arrives.
    load.undisturbed_by("a rolling restart afterwards", mesh.cluster.restart(NAMESPACE, "web", "app=web"))
        .await
        .map(drop)
}

/// Pods outside the mesh are created as if there were no Weft; those inside wait for it.
async fn fails_no_call_while_the_webhook_is_down_and_creates_pods_afterwards(mesh: &Mesh) -> anyhow::Result<()> {
    let outside = "weft-outside";
    let load = settled_load(mesh).await?;
    mesh.cluster.delete_namespace(outside).await?;
    load.undisturbed_by("an outage of the webhook", async {
        mesh.cluster.scale(SYSTEM, CONTROL_PLANE, 0).await?;
        mesh.cluster
            .apply(&(manifests::namespace(outside, "test: weft") + &manifests::server(outside, "server", 1)))
            .await?;
        mesh.cluster.rolled_out(outside, "server").await?;
        mesh.cluster.restart_only(NAMESPACE, "web").await?;
        mesh.cluster.scale(SYSTEM, CONTROL_PLANE, 1).await?;
        mesh.cluster.rolled_out(NAMESPACE, "web").await
    })
    .await?;
    for pod in mesh.cluster.pods(NAMESPACE, "app=web").await? {
        ensure!(pod.annotations().contains_key("weft.mesh/injected"), "{} came up without a sidecar", pod.name_any());
    }
    mesh.cluster.delete_namespace(outside).await
}

async fn recovers_from_an_application_that_crashes(mesh: &Mesh) -> anyhow::Result<()> {
    let pod = mesh.cluster.pod(NAMESPACE, "app=catalog").await?.name_any();
    let restarts = async || {
        let status = mesh.cluster.api::<k8s_openapi::api::core::v1::Pod>(NAMESPACE).get(&pod).await?.status;
        let containers = status.and_then(|status| status.container_statuses).unwrap_or_default();
        let container =
            containers.into_iter().find(|container| container.name == "shop").context("no container shop")?;
        Ok::<_, anyhow::Error>((container.restart_count, container.ready))
    };
    let (before, _) = restarts().await?;
    let crash = "POST http://127.0.0.1:9000/control/fail?mode=crash&rate=1";
    mesh.cluster.probe(NAMESPACE, &pod, crash, &[]).await?;
    until(PATIENCE, &format!("{pod}'s application has crashed and is ready again"), async || {
        let (now, ready) = restarts().await?;
        Ok((now > before && ready).then_some(()))
    })
    .await?;
    settled_load(mesh).await.map(drop)
}

async fn ends_the_shop(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await
}

/// A capture on all of the node's interfaces, with a call past the mesh as the proof that it would be seen.
async fn shows_nothing_of_calls_on_the_wire(mesh: &Mesh) -> anyhow::Result<()> {
    const OUTSIDE: &str = "weft-plaintext";
    // In every answer of the shop's program. Nothing is asked of it meanwhile: the runtime's own streams would be seen too.
    const MARKER: &[u8] = b"weft-shop-plaintext-";
    let load = settled_load(mesh).await?;
    load.mark("wire").await?;
    let (capture, began) = (Capture::here()?, Instant::now());
    until(PATIENCE, "2,000 frames have passed", async || Ok((capture.frames() > 2_000).then_some(()))).await?;
    let (seen, took) = (capture.stop(), began.elapsed());
    let counts = load.since("wire").await?;
    // Frames pass without calls too. The load was never without an answer for as long as the capture took: some fell into it.
    ensure!(counts.largest_gap_ms < took.as_secs_f64() * 1000.0, "no call within {took:?}: {counts:?}");
    ensure!(seen.dropped() == 0, "{} frames were lost, so their absence proves nothing", seen.dropped());
    ensure!(!seen.contains(MARKER), "an answer of the shop is readable on the wire");

    mesh.cluster.delete_namespace(OUTSIDE).await?;
    let all = manifests::namespace(OUTSIDE, "test: weft")
        + &manifests::server(OUTSIDE, "server", 1)
        + &manifests::client(OUTSIDE, "client", 10, "http://server/reviews");
    let capture = Capture::here()?;
    mesh.cluster.apply(&all).await?;
    until(PATIENCE, "a call past the mesh is readable", async || Ok(capture.contains(MARKER).then_some(()))).await?;
    mesh.cluster.delete_namespace(OUTSIDE).await
}

/// As a NetworkPolicy would have them: between pods, only the ports that applications listen on, and what everybody needs.
async fn gets_through_node_rules_that_admit_only_target_ports(mesh: &Mesh) -> anyhow::Result<()> {
    const CHAIN: &str = "WEFT-E2E";
    const PORTS: &str = "8080,50051,4222,53,15012,15017";
    const OUTSIDE: &str = "weft-outside";
    let (load, node) = (settled_load(mesh).await?, mesh.node()?);
    mesh.cluster.delete_namespace(OUTSIDE).await?;
    mesh.cluster
        .apply(&(manifests::namespace(OUTSIDE, "test: weft") + &manifests::server(OUTSIDE, "server", 1)))
        .await?;
    mesh.cluster.rolled_out(OUTSIDE, "server").await?;
    let caller = mesh.cluster.pod(OUTSIDE, "app=server").await?.name_any();
    let web = mesh.cluster.pod(NAMESPACE, "app=web").await?;
    let web = web.status.and_then(|status| status.pod_ip).context("a pod that serves has an address")?;
    // A port that no rule admits.
    let forbidden = format!("http://{web}:15020/ready");
    let answer = mesh.cluster.probe(OUTSIDE, &caller, &forbidden, &[]).await?;
    ensure!(answer.ok, "{forbidden} without the rules: {answer:?}");
    let iptables = async |rule: &str| node.run(&[&["iptables"], &*rule.split(' ').collect::<Vec<_>>()].concat()).await;
    load.settled().await?;
    for rule in [
        format!("-N {CHAIN}"),
        format!("-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"),
        format!("-A {CHAIN} -p tcp -m multiport --dports {PORTS} -j RETURN"),
        format!("-A {CHAIN} -p tcp -i cni0 -o cni0 -j REJECT"),
        format!("-I FORWARD -j {CHAIN}"),
    ] {
        iptables(&rule).await?;
    }
    let outcome = async {
        let answer = mesh.cluster.probe(OUTSIDE, &caller, &forbidden, &[]).await?;
        ensure!(!answer.ok && answer.status.is_none(), "{forbidden} in spite of the rules: {answer:?}");
        // New pods make new connections.
        let restart = async {
            for (name, selector) in WORKLOADS {
                mesh.cluster.restart(NAMESPACE, name, selector).await?;
            }
            Ok(())
        };
        load.undisturbed_by("a rolling restart behind the rules", restart).await
    }
    .await;
    for rule in [format!("-D FORWARD -j {CHAIN}"), format!("-F {CHAIN}"), format!("-X {CHAIN}")] {
        iptables(&rule).await?;
    }
    outcome?;
    mesh.cluster.delete_namespace(OUTSIDE).await
}

async fn fails_no_call_during_a_restart_of_kube_proxy(mesh: &Mesh) -> anyhow::Result<()> {
    let (load, node) = (settled_load(mesh).await?, mesh.node()?);
    load.undisturbed_by("a restart of kube-proxy", async {
        node.stop("kube-proxy").await?;
        mesh.cluster.restart_only(NAMESPACE, "web").await?;
        node.start("kube-proxy").await?;
        mesh.cluster.rolled_out(NAMESPACE, "web").await
    })
    .await
    .map(drop)
}

/// Watches break off, and the versions they resume from may be forgotten.
async fn fails_no_call_while_there_is_no_api_server_for_half_a_minute(mesh: &Mesh) -> anyhow::Result<()> {
    let (load, node) = (settled_load(mesh).await?, mesh.node()?);
    load.undisturbed_by("an outage of the API server", async {
        node.stop("kube-apiserver").await?;
        tokio::time::sleep(Duration::from_secs(30)).await;
        node.start("kube-apiserver").await?;
        until(PATIENCE, "the API server answers", async || {
            mesh.cluster.kubectl(&["get", "--raw", "/readyz"], "").await.map(Some)
        })
        .await
        .map(drop)
    })
    .await?;
    load.undisturbed_by("a rolling restart afterwards", mesh.cluster.restart(NAMESPACE, "web", "app=web"))
        .await
        .map(drop)
}

async fn goes_on_after_a_sidecar_was_killed(mesh: &Mesh) -> anyhow::Result<()> {
    let node = mesh.node()?;
    let pod = mesh.cluster.pod(NAMESPACE, "app=queue").await?;
    let status = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let sidecar = status.iter().find(|container| container.name == "weft-proxy").context("no sidecar")?;
    let id =
        sidecar.container_id.as_deref().and_then(|id| id.strip_prefix("containerd://")).context("no containerd")?;
    let before = sidecar.restart_count;
    node.run(&["ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id]).await?;
    until(PATIENCE, "the sidecar runs again", async || {
        let pod = mesh.cluster.pod(NAMESPACE, "app=queue").await?;
        let status = pod.status.and_then(|status| status.init_container_statuses).unwrap_or_default();
        Ok(status.iter().any(|c| c.name == "weft-proxy" && c.restart_count > before && c.ready).then_some(()))
    })
    .await?;
    settled_load(mesh).await.map(drop)
}

/// The load, once its calls succeed and every front end has had some.
async fn settled_load(mesh: &Mesh) -> anyhow::Result<Load<'_>> {
    let load = load(mesh).await?;
    load.settled().await?;
    let front_ends = mesh.cluster.pods(NAMESPACE, "app=web").await?;
    load.reaches(&front_ends.iter().map(ResourceExt::name_any).collect::<Vec<_>>()).await?;
    Ok(load)
}

async fn load(mesh: &Mesh) -> anyhow::Result<Load<'_>> {
    Load::of(&mesh.cluster, NAMESPACE, "loadgen").await
}

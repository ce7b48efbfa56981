//! What Kubernetes runs, with a sidecar beside it.

use anyhow::ensure;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use weft_local_mesh::identity;

use crate::cluster::{PATIENCE, until};
use crate::manifests::{self, VERSION};
use crate::mesh::Mesh;
use crate::report::Test;
use crate::tests::tests;

pub(crate) fn tests() -> Vec<Test<Mesh>> {
    tests![
        #[essential]
        runs_a_namespace_of_workloads,
        completes_jobs,
        reaches_a_pod_of_a_stateful_set_by_its_own_name,
        lets_a_pod_call_itself_through_its_service,
        gives_init_containers_a_network_and_names,
        leaves_pods_alone_that_opt_out,
        starts_50_pods_that_are_created_at_once,
        ends_the_workloads,
    ]
}

const NAMESPACE: &str = "weft-workloads";

async fn runs_a_namespace_of_workloads(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await?;
    let all = manifests::meshed_namespace(NAMESPACE)
        + &manifests::server(NAMESPACE, "server", 1)
        + &manifests::client(NAMESPACE, "client", 1, "http://server/reviews");
    mesh.cluster.apply(&all).await?;
    mesh.cluster.rolled_out(NAMESPACE, "server").await?;
    mesh.cluster.rolled_out(NAMESPACE, "client").await
}

async fn completes_jobs(mesh: &Mesh) -> anyhow::Result<()> {
    let container = manifests::container(&["probe", "http://server/reviews"]);
    let job = format!(
        "apiVersion: batch/v1
kind: Job
metadata: {{ name: job, namespace: {NAMESPACE} }}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - {container}
"
    );
    mesh.cluster.apply(&job).await?;
    let api = mesh.cluster.api::<Job>(NAMESPACE);
    until(PATIENCE, "the job has ended", async || {
        let status = api.get("job").await?.status.unwrap_or_default();
        ensure!(status.failed.unwrap_or(0) == 0, "the job failed: {status:?}");
        Ok((status.succeeded == Some(1)).then_some(()))
    })
    .await
}

async fn reaches_a_pod_of_a_stateful_set_by_its_own_name(mesh: &Mesh) -> anyhow::Result<()> {
    let container = manifests::container(&["reviews"]);
    let set = format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: set, namespace: {NAMESPACE} }}
spec:
  clusterIP: None
  selector: {{ app: set }}
  ports: [{{ name: http, port: 8080, appProtocol: http }}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{ name: set, namespace: {NAMESPACE} }}
spec:
  serviceName: set
  replicas: 2
  podManagementPolicy: Parallel
  selector:
    matchLabels: {{ app: set }}
  template:
    metadata:
      labels: {{ app: set }}
    spec:
      serviceAccountName: server
      containers:
        - {container}
          readinessProbe:
            exec: {{ command: [/weft-shop, probe, 'http://127.0.0.1:9000/healthz'] }}
            periodSeconds: 1
            timeoutSeconds: 10
"
    );
    mesh.cluster.apply(&set).await?;
    let client = mesh.cluster.pod(NAMESPACE, "app=client").await?.name_any();
    for pod in ["set-0", "set-1"] {
        let answer = until(PATIENCE, &format!("{pod} answers by its own name"), async || {
            let answer = mesh.cluster.probe(NAMESPACE, &client, &format!("http://{pod}.set:8080/reviews"), &[]).await?;
            ensure!(answer.ok, "{answer:?}");
            Ok(Some(answer))
        })
        .await?;
        ensure!(answer.header("x-replica") == pod, "{pod} was called, and this answered: {answer:?}");
        let metrics = mesh.cluster.sidecar_metrics(NAMESPACE, pod).await?;
        let caller = identity(NAMESPACE, "client");
        let labels = [("direction", "inbound"), ("tls", "mutual"), ("peer", &*caller)];
        ensure!(metrics.sum("weft_requests_total", &labels) > 0.0, "{pod} has not seen {caller}");
    }
    Ok(())
}

async fn lets_a_pod_call_itself_through_its_service(mesh: &Mesh) -> anyhow::Result<()> {
    let server = mesh.cluster.pod(NAMESPACE, "app=server").await?.name_any();
    let answer = mesh.cluster.probe(NAMESPACE, &server, "http://server/reviews", &[]).await?;
    ensure!(answer.ok && answer.header("x-replica") == server, "{server} called itself: {answer:?}");
    Ok(())
}

/// The init container resolves a name over UDP and calls a Service, as one does that waits for a database. It comes after the sidecar.
async fn gives_init_containers_a_network_and_names(mesh: &Mesh) -> anyhow::Result<()> {
    let pod = format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: patient, namespace: {NAMESPACE} }}
spec:
  restartPolicy: Never
  initContainers:
    - name: wait
      image: weft/shop:{VERSION}
      args: [probe, 'http://server.{NAMESPACE}.svc.cluster.local/reviews']
  containers:
    - name: shop
      image: weft/shop:{VERSION}
      args: [probe, 'http://server/reviews']
"
    );
    mesh.cluster.apply(&pod).await?;
    let api = mesh.cluster.api::<Pod>(NAMESPACE);
    until(PATIENCE, "the pod's containers have ended well", async || {
        let phase = api.get("patient").await?.status.and_then(|status| status.phase).unwrap_or_default();
        ensure!(phase != "Failed", "the pod failed");
        Ok((phase == "Succeeded").then_some(()))
    })
    .await
}

async fn leaves_pods_alone_that_opt_out(mesh: &Mesh) -> anyhow::Result<()> {
    let pod = |name: &str, more: &str, spec: &str| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, namespace: {NAMESPACE}, {more} }}
spec:
  {spec}
  terminationGracePeriodSeconds: 1
  containers:
    - {{ name: shop, image: 'weft/shop:{VERSION}', args: [loadgen, --rate=0, --quiet, '--target=http://server'] }}
"
        )
    };
    let pods = [
        ("by-annotation", "annotations: { weft.mesh/inject: disabled }", ""),
        ("by-label", "labels: { weft.mesh/inject: disabled }", ""),
        ("on-the-nodes-network", "", "hostNetwork: true"),
    ];
    for (name, more, spec) in pods {
        mesh.cluster.apply(&pod(name, more, spec)).await?;
        let pod = mesh.cluster.api::<Pod>(NAMESPACE).get(name).await?;
        let spec = pod.spec.unwrap_or_default();
        let added = spec.init_containers.unwrap_or_default();
        ensure!(added.is_empty(), "{name} was given {:?}", added.iter().map(|c| &c.name).collect::<Vec<_>>());
    }
    Ok(())
}

async fn starts_50_pods_that_are_created_at_once(mesh: &Mesh) -> anyhow::Result<()> {
    let many = manifests::Application {
        namespace: NAMESPACE,
        name: "many",
        arguments: &["loadgen", "--rate=1", "--control=127.0.0.1:9100", "--quiet", "--target=http://server/reviews"],
        replicas: 50,
        annotations: "weft.mesh/proxy-cpu-request: 1m",
    };
    mesh.cluster.apply(&many.yaml()).await?;
    mesh.cluster.rolled_out(NAMESPACE, "many").await?;
    let pods = mesh.cluster.pods(NAMESPACE, "app=many").await?;
    ensure!(pods.len() == 50, "there are {} pods", pods.len());
    for pod in &pods {
        let name = pod.name_any();
        // While 50 pods begin, a small node may need longer for a handshake than a connection may take.
        until(PATIENCE, &format!("{name} gets an answer"), async || {
            let answer = mesh.cluster.probe(NAMESPACE, &name, "http://server/reviews", &["--timeout", "30"]).await?;
            ensure!(answer.ok, "{answer:?}");
            Ok(Some(()))
        })
        .await?;
    }
    mesh.cluster.kubectl(&["-n", NAMESPACE, "delete", "deployment", "many", "--wait=false"], "").await.map(drop)
}

async fn ends_the_workloads(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await
}

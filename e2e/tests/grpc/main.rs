//! Unmodified gRPC applications in the mesh, without sidecars: `xds:///` clients and xDS-enabled servers (Python's grpcio), in plaintext and in
//! mutual TLS, with certificates of `weft agent`; CSDS says what they made of what they were sent.
// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

mod application;

use std::time::Duration;

use weft_e2e::Mesh;
use weft_e2e::yaml::{mesh_tls, object, policy, service};
use weft_local_mesh::{Endpoint, Error, Proxyless, Spec, wait};
use weft_sandbox::testing::{self, Failure, TestResult};

use application::{Calls, PORT, Python};

weft_sandbox::tests! {
    plaintext_clients_follow_splits_header_matches_and_retries,
    clients_with_mutual_tls_follow_splits_header_matches_and_retries,
    servers_with_mutual_tls_deny_by_identity_and_by_method,
    a_client_with_mutual_tls_calls_a_server_behind_our_sidecar,
    certificates_and_roots_rotate_under_clients_and_servers,
}

const LIMIT: Duration = Duration::from_secs(60);

/// What clients call.
const TARGET: &str = "echo.mesh:50051";

async fn plaintext_clients_follow_splits_header_matches_and_retries() -> TestResult {
    follow_routes(false).await
}

async fn clients_with_mutual_tls_follow_splits_header_matches_and_retries() -> TestResult {
    follow_routes(true).await
}

async fn follow_routes(meshed: bool) -> TestResult {
    let python = Python::find()?;
    let mesh = start().await?;
    let mesh_or_not = |spec| Spec { meshed, ..spec };
    for (name, version) in [("echo-0", "v1"), ("echo-1", "v2")] {
        serve(&mesh, &python, mesh_or_not(Spec::server(name, "echo", version)), "xds", 0).await?;
    }
    let by_files = if meshed { "tls" } else { "plain" };
    serve(&mesh, &python, mesh_or_not(Spec::server("flaky-0", "flaky", "v1")), by_files, 2).await?;
    let client = mesh.add_proxyless(Spec::client("client")).await?;
    let calls =
        async |target: &str, headers: &[&str]| python.calls(&client, target, "/echo.Echo/Say", 10, headers).await;

    let both = calls(TARGET, &[]).await?;
    let by_each = ["echo-0", "echo-1"].map(|replica| both.replica(replica));
    assert!(both.succeeded() == 10 && by_each.iter().all(|count| *count >= 3), "in turn: {both:?}");
    assert_all_acked(&both);

    mesh.apply("routes.yaml", &split(0, 100)).await?;
    let split_off = calls(TARGET, &[]).await?;
    assert_eq!(split_off.replica("echo-1"), 10, "{split_off:?}");
    let chosen = calls(TARGET, &["x-version=v1"]).await?;
    assert_eq!(chosen.replica("echo-0"), 10, "by a header: {chosen:?}");
    assert_all_acked(&chosen);

    let flaky = calls("flaky.mesh.svc.cluster.local:50051", &[]).await?;
    assert_eq!(
        (flaky.succeeded(), flaky.code("UNAVAILABLE")),
        (8, 2),
        "counter-proof: its first two calls fail: {flaky:?}"
    );
    let retries = "retries: { attempts: 3, conditions: [unavailable] }";
    mesh.apply("traffic.yaml", &policy("TrafficPolicy", "flaky", retries)).await?;
    // Another method is counted anew.
    let retried = python.calls(&client, "flaky.mesh:50051", "/echo.Echo/Again", 10, &[]).await?;
    assert_eq!(retried.succeeded(), 10, "{retried:?}");
    assert_all_acked(&retried);
    Ok(mesh.none_rejected().await?)
}

async fn servers_with_mutual_tls_deny_by_identity_and_by_method() -> TestResult {
    let python = Python::find()?;
    let mesh = start().await?;
    serve(&mesh, &python, Spec::server("echo-0", "echo", "v1"), "xds", 0).await?;
    let friend = mesh.add_proxyless(Spec::client("friend")).await?;
    let stranger = mesh.add_proxyless(Spec::client("stranger")).await?;
    let call = async |client: &Proxyless, method: &str| {
        let calls = python.calls(client, TARGET, method, 1, &[]).await?;
        Ok::<_, Error>(calls.codes()[0].clone())
    };
    for client in [&friend, &stranger] {
        assert_eq!(call(client, "/echo.Echo/Say").await?, "OK", "without a policy everyone may call");
    }
    let rules =
        "action: Allow\nrules: [{ from: [{ serviceAccounts: [mesh/friend] }], to: [{ paths: [/echo.Echo/Say] }] }]";
    mesh.apply("access.yaml", &policy("AccessPolicy", "echo", rules)).await?;
    let refused = async || Ok((call(&stranger, "/echo.Echo/Say").await? == "PERMISSION_DENIED").then_some(()));
    wait::until(LIMIT, "another identity is refused", refused).await?;
    assert_eq!(call(&friend, "/echo.Echo/Other").await?, "PERMISSION_DENIED", "another method is refused");
    assert_eq!(call(&friend, "/echo.Echo/Say").await?, "OK", "what the policy allows is served");
    Ok(mesh.none_rejected().await?)
}

async fn a_client_with_mutual_tls_calls_a_server_behind_our_sidecar() -> TestResult {
    let python = Python::find()?;
    let mesh = start().await?;
    mesh.apply("tls.yaml", &mesh_tls("Strict")).await?;
    // The Service chooses by the label `app`, which is the pod's name where it has no role of the shop.
    let server = mesh.add(Spec::client("echo")).await?;
    python.serve(server.pod(), "echo-0", "plain", 0).await?;
    let client = mesh.add_proxyless(Spec::client("client")).await?;
    let calls = python.calls(&client, TARGET, "/echo.Echo/Say", 10, &[]).await?;
    assert_eq!(calls.replica("echo-0"), 10, "{calls:?}");
    assert_all_acked(&calls);
    let mutual = [("tls", "mutual"), ("direction", "inbound"), ("response_class", "2xx")];
    assert_eq!(server.metrics().await?.sum("weft_requests_total", &mutual), 10.0);
    Ok(mesh.none_rejected().await?)
}

async fn certificates_and_roots_rotate_under_clients_and_servers() -> TestResult {
    let python = Python::find()?;
    let settings = weft_local_mesh::Settings {
        certificate_lifetime: Duration::from_secs(6),
        root_overlap: Duration::from_secs(2),
    };
    let mesh = start_with(&settings).await?;
    let server = serve(&mesh, &python, Spec::server("echo-0", "echo", "v1"), "xds", 0).await?;
    let client = mesh.add_proxyless(Spec::client("client")).await?;
    let load = python.load(&client, TARGET, "/echo.Echo/Say").await?;
    let mut seen = std::collections::BTreeSet::new();
    let rotated = async |pod: &Proxyless, seen: &mut std::collections::BTreeSet<Vec<u8>>, times: usize| {
        let chain = pod.pod().run_dir().join("agent/chain.pem");
        wait::until(LIMIT, "the certificate is another", async || {
            seen.insert(std::fs::read(&chain).unwrap_or_default());
            Ok((seen.len() > times).then_some(()))
        })
        .await
    };
    rotated(&server, &mut seen, 3).await?;
    mesh.control_plane().rotate_root().await?;
    wait::until(LIMIT, "the old root is trusted no more", async || {
        let status = mesh.control_plane().status().await?;
        Ok((status["roots"].as_array().map(Vec::len) == Some(1)).then_some(()))
    })
    .await?;
    rotated(&server, &mut seen, 6).await?;
    // A new process makes new connections, under the new root only.
    let calls = python.calls(&client, TARGET, "/echo.Echo/Say", 5, &[]).await?;
    assert_eq!(calls.succeeded(), 5, "{calls:?}");
    let calls = load.end().await?;
    assert!(calls.codes().len() > 20 && calls.succeeded() == calls.codes().len(), "{:?}", calls.failures());
    Ok(mesh.none_rejected().await?)
}

async fn start() -> Result<Mesh, Failure> {
    start_with(&weft_local_mesh::Settings::default()).await
}

async fn start_with(settings: &weft_local_mesh::Settings) -> Result<Mesh, Failure> {
    let mesh = Mesh::start_with(testing::sandbox().await?, settings).await?;
    let echo = |name: &str, labels: &str| service(name, labels, PORT, PORT, "grpc");
    mesh.serve(&[
        echo("echo", "app: echo"),
        echo("echo-v1", "app: echo, version: v1"),
        echo("echo-v2", "app: echo, version: v2"),
        echo("flaky", "app: flaky"),
    ])
    .await?;
    Ok(mesh)
}

/// A server of a kind that `server.py` knows, to which Services send requests when this returns.
async fn serve(mesh: &Mesh, python: &Python, spec: Spec, kind: &str, failures: u32) -> Result<Proxyless, Failure> {
    let server = mesh.add_proxyless(spec).await?;
    python.serve(server.pod(), &server.spec().name, kind, failures).await?;
    mesh.declare_proxyless(&server, Endpoint::Ready)?;
    mesh.in_force().await?;
    Ok(server)
}

/// A header chooses the first version; the rest is split.
fn split(v1: u32, v2: u32) -> String {
    let backend = |version: &str, weight: u32| format!("{{ name: echo-{version}, port: {PORT}, weight: {weight} }}");
    let chosen = format!(
        "{{ matches: [{{ headers: [{{ name: x-version, value: v1 }}] }}], backendRefs: [{}] }}",
        backend("v1", 1)
    );
    let rest = format!("{{ backendRefs: [{}, {}] }}", backend("v1", v1), backend("v2", v2));
    let parent = format!(r#"{{ group: "", kind: Service, name: echo, port: {PORT} }}"#);
    object(
        "gateway.networking.k8s.io/v1 GRPCRoute",
        "echo",
        &format!("{{ parentRefs: [{parent}], rules: [{chosen}, {rest}] }}"),
    )
}

/// The client accepted everything that it was sent.
#[track_caller]
fn assert_all_acked(calls: &Calls) {
    let kinds: std::collections::BTreeSet<_> =
        calls.resources().iter().map(|resource| resource.kind.as_str()).collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"]
    );
    for resource in calls.resources() {
        assert!(resource.is_acked(), "{resource:?}");
    }
}

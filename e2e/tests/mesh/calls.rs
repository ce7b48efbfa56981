//! Calls of every protocol, and who may make them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_e2e::yaml::{mesh_tls, service};
use weft_e2e::{Mesh, identity};
use weft_local_mesh::client::Call;
use weft_local_mesh::probe::probe;
use weft_local_mesh::{Counted, Error, Programs, Sidecar, Spec, wait};
use weft_sandbox::testing::{self, TestResult};

use super::sidecars::Sidecars;
use super::sockets::{ask, connect};

/// How long something may take on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn http1_call_between_two_pods_is_mutually_authenticated() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    let client = mesh.add(Spec::client("client")).await?;
    let server = mesh.add(Spec::server("reviews-0", "reviews", "v1")).await?;
    // What the application writes into every answer.
    let marker = b"weft-shop-plaintext-reviews";

    let (bridge, inside) = (mesh.sandbox().capture().await?, server.pod().capture().await?);
    let addresses = mesh.service_addresses("reviews").await?;
    assert_eq!(
        addresses.iter().map(|address| address.is_ipv6()).collect::<Vec<_>>(),
        [false, true],
        "one of each kind"
    );
    for address in addresses {
        let target = format!("http://{}/reviews", SocketAddr::new(address, 80));
        let outcome = client.probe(&target, &[]).await?;
        assert!(outcome.ok, "{target}: {outcome:?}");
        assert_eq!((outcome.protocol.as_str(), outcome.header("x-replica")), ("HTTP/1.1", "reviews-0"));
        assert!(outcome.body.contains("weft-shop-plaintext-reviews"));
    }
    let (bridge, inside) = (bridge.stop(), inside.stop());
    assert!(bridge.frames().count() > 0 && bridge.dropped() == 0);
    assert!(!bridge.contains(marker), "nothing of the answers is readable between the pods");
    assert!(inside.contains(marker), "counter-proof: it is inside the pod, where the sidecar hands it over");

    let outbound = [("direction", "outbound"), ("destination_service", "mesh/reviews"), ("tls", "mutual")];
    let of_client = client.metrics().await?;
    let peer = identity("reviews");
    let labels = [&outbound[..], &[("peer", &*peer), ("response_class", "2xx")]].concat();
    assert_eq!(of_client.sum("weft_requests_total", &labels), 2.0, "the caller knows whom it called");
    assert_eq!(of_client.sum("weft_requests_total", &[]), 2.0);
    let of_server = server.metrics().await?;
    let peer = identity("client");
    let labels = [("direction", "inbound"), ("tls", "mutual"), ("peer", &*peer), ("response_class", "2xx")];
    assert_eq!(of_server.sum("weft_requests_total", &labels), 2.0, "the called knows who called");
    Ok(())
}

pub(crate) async fn every_protocol_passes_two_sidecars() -> TestResult {
    every_protocol_passes(Sidecars::WEFT).await
}

pub(crate) async fn every_protocol_passes_from_envoy_to_weft() -> TestResult {
    every_protocol_passes(Sidecars::envoy_calls()?).await
}

pub(crate) async fn every_protocol_passes_from_weft_to_envoy() -> TestResult {
    every_protocol_passes(Sidecars::envoy_is_called()?).await
}

pub(crate) async fn every_protocol_passes_two_envoys() -> TestResult {
    every_protocol_passes(Sidecars::envoys()?).await
}

async fn every_protocol_passes(Sidecars { caller, called }: Sidecars) -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[
        service("catalog", "app: catalog", 80, 8080, "kubernetes.io/h2c"),
        service("cart", "app: cart", 50051, 50051, "grpc"),
        service("payments", "app: payments", 50051, 50051, "grpc"),
        service("notifications", "app: notifications", 80, 8080, "kubernetes.io/ws"),
        service("queue", "app: queue", 4222, 4222, "tcp"),
    ])
    .await?;
    // So that what arrives has come through both sidecars.
    mesh.apply("tls.yaml", &mesh_tls("Strict")).await?;
    let client = mesh.add(Spec::client("client").with(caller)).await?;
    let roles = ["catalog", "cart", "payments", "notifications", "queue"];
    let servers = roles.map(|role| mesh.add(Spec::server(&format!("{role}-0"), role, "v1").with(called)));
    let servers = futures_util::future::try_join_all(servers).await?;
    for (service, target, protocol) in [
        ("catalog", "h2c://catalog/products", "HTTP/2"),
        // One message each way; a stream back; one there; both at once.
        ("cart", "grpc://cart:50051/cart", "gRPC"),
        ("cart", "grpc://cart:50051/watch", "gRPC"),
        ("payments", "grpc://payments:50051/batch", "gRPC"),
        ("payments", "grpc://payments:50051/settle", "gRPC"),
        ("notifications", "ws://notifications/ws", "WebSocket"),
        // The server speaks first.
        ("queue", "tcp://queue:4222", "TCP"),
    ] {
        for target in mesh.by_address(service, &[target]).await? {
            // The second call uses the connection of the first.
            for outcome in client.probes(&target, &["--repeat", "2"]).await? {
                assert!(outcome.ok, "{target}: {outcome:?}");
                let replica = format!("{service}-0");
                assert_eq!((outcome.protocol.as_str(), outcome.header("x-replica")), (protocol, &*replica), "{target}");
            }
        }
    }
    for server in &servers {
        assert!(server.count(Counted::MutualTls).await? >= 1.0, "{}", server.name());
        if called == Sidecar::Weft {
            let plaintext = [("direction", "inbound"), ("tls", "none")];
            assert_eq!(server.metrics().await?.sum("weft_connections_total", &plaintext), 0.0, "{}", server.name());
        }
    }
    mesh.none_rejected().await?;
    if caller != Sidecar::Weft {
        return Ok(());
    }
    let metrics = client.metrics().await?;
    let grpc = [("destination_service", "mesh/payments"), ("response_class", "2xx")];
    assert_eq!(metrics.sum("weft_requests_total", &grpc), 8.0);
    Ok(())
}

pub(crate) async fn no_protocol_answers_a_pod_without_sidecar_under_strict_mode() -> TestResult {
    const PROTOCOLS: [(&str, u16, &str, &str); 5] = [
        ("reviews", 8080, "http", "http://reviews:8080/reviews"),
        ("catalog", 8080, "kubernetes.io/h2c", "h2c://catalog:8080/products"),
        ("cart", 50051, "grpc", "grpc://cart:50051/cart"),
        ("notifications", 8080, "kubernetes.io/ws", "ws://notifications:8080/ws"),
        ("queue", 4222, "tcp", "tcp://queue:4222"),
    ];
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&PROTOCOLS.map(|(name, port, kind, _)| service(name, &format!("app: {name}"), port, port, kind)))
        .await?;
    mesh.apply("tls.yaml", &mesh_tls("Strict")).await?;
    let outsider = mesh.add_outsider("outsider").await?;
    let mut doors = Vec::new();
    for (role, port, _, target) in PROTOCOLS {
        let server = mesh.add(Spec::server(&format!("{role}-0"), role, "v1")).await?;
        for address in server.pod().addresses().both() {
            doors.push(target.replace(&format!("{role}:{port}"), &SocketAddr::new(address, port).to_string()));
        }
    }
    let shop = Programs::find()?.shop;
    let knock = async |door: &String| Ok::<_, Error>(probe(&outsider, &shop, door, &[]).await?.swap_remove(0));
    for door in &doors {
        let outcome = knock(door).await?;
        // What answered would be told by its status.
        let answered = ["http_", "grpc_"].iter().any(|word| outcome.class().starts_with(word));
        assert!(!outcome.ok && !answered, "{door} answered {outcome:?}");
    }
    mesh.apply("tls.yaml", &mesh_tls("Permissive")).await?;
    for door in &doors {
        wait::until(LIMIT, &format!("permissive mode serves {door}"), async || Ok(knock(door).await?.ok.then_some(())))
            .await?;
    }
    Ok(())
}

pub(crate) async fn strict_refuses_a_pod_without_sidecar_and_permissive_serves_it() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    mesh.apply("tls.yaml", &mesh_tls("Strict")).await?;
    let client = mesh.add(Spec::client("client")).await?;
    let server = mesh.add(Spec::server("reviews-0", "reviews", "v1")).await?;
    let outsider = mesh.add_outsider("outsider").await?;
    let call = Call::get("/reviews");

    for address in server.pod().addresses().both() {
        let answer = call.inside(&outsider, SocketAddr::new(address, 8080)).await;
        assert!(answer.is_err(), "strict: {address} answered {answer:?}");
    }
    let outcome = client.probe("http://reviews/reviews", &[]).await?;
    assert!(outcome.ok, "counter-proof: a pod with a sidecar is served: {outcome:?}");

    mesh.apply("tls.yaml", &mesh_tls("Permissive")).await?;
    for address in server.pod().addresses().both() {
        let address = SocketAddr::new(address, 8080);
        wait::until(LIMIT, "permissive mode serves the pod without sidecar", async || {
            Ok((call.inside(&outsider, address).await?.status == 200).then_some(()))
        })
        .await?;
    }
    let metrics = server.metrics().await?;
    let plain = [("direction", "inbound"), ("tls", "none"), ("peer", ""), ("response_class", "2xx")];
    assert_eq!(metrics.sum("weft_requests_total", &plain), 2.0, "and says that nobody vouched for the caller");

    mesh.apply("tls.yaml", &mesh_tls("Strict")).await?;
    let address = SocketAddr::new(server.pod().v4(), 8080);
    wait::until(LIMIT, "strict mode refuses it again", async || {
        Ok(call.inside(&outsider, address).await.is_err().then_some(()))
    })
    .await?;
    Ok(())
}

pub(crate) async fn a_late_client_hello_is_one_all_the_same() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    let server = mesh.add(Spec::server("reviews-0", "reviews", "v1")).await?;
    let outsider = mesh.add_outsider("outsider").await?;
    let config = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    let mut config = config.with_no_client_auth();
    // What tells a sidecar's TLS from an application's own.
    config.alpn_protocols = vec![b"weft-http/1.1".to_vec()];
    let config = Arc::new(config);
    let mut hello = Vec::new();
    rustls::ClientConnection::new(config, "reviews".try_into()?)?.write_tls(&mut hello)?;
    for mode in ["Permissive", "Strict"] {
        mesh.apply("tls.yaml", &mesh_tls(mode)).await?;
        for address in server.pod().addresses().both() {
            let mut connection = connect(&outsider, SocketAddr::new(address, 8080)).await?;
            // As one that was lost and is sent again.
            tokio::time::sleep(Duration::from_secs(1)).await;
            connection.write_all(&hello).await?;
            let mut first = [0];
            tokio::time::timeout(LIMIT, connection.read_exact(&mut first)).await??;
            // A record of TLS: a handshake, or an alert.
            assert!([0x16, 0x15].contains(&first[0]), "{mode}: {address} answers {:?}", char::from(first[0]));
        }
    }
    Ok(())
}

pub(crate) async fn strict_mode_ends_plaintext_that_was_admitted_before() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    let server = mesh.add(Spec::server("reviews-0", "reviews", "v1")).await?;
    let outsider = mesh.add_outsider("outsider").await?;
    let address = SocketAddr::new(server.pod().v4(), 8080);
    let mut connection = connect(&outsider, address).await?;
    for _ in 0..2 {
        assert!(ask(&mut connection).await?.starts_with("HTTP/1.1 200"), "permissive mode keeps the connection");
    }

    mesh.apply("tls.yaml", &mesh_tls("Strict")).await?;
    // Which may take a moment to arrive.
    wait::until(LIMIT, "the open connection is answered no more", async || {
        let answer = ask(&mut connection).await.unwrap_or_default();
        Ok(answer.is_empty().then_some(()))
    })
    .await?;
    Ok(())
}

//! Destinations that are oneself, nobody the mesh knows, or the sidecar.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_e2e::yaml::service;
use weft_e2e::{Mesh, identity};
use weft_local_mesh::client::Call;
use weft_local_mesh::{Programs, Spec, wait};
use weft_sandbox::Pod;
use weft_sandbox::testing::{self, TestResult};

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn a_pod_calls_itself_through_its_service() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    let server = mesh.add(Spec::server("reviews-0", "reviews", "v1")).await?;
    for address in mesh.service_addresses("reviews").await? {
        let outcome = server.probe(&format!("http://{}/reviews", SocketAddr::new(address, 80)), &[]).await?;
        assert!(outcome.ok && outcome.header("x-replica") == "reviews-0", "{address}: {outcome:?}");
    }
    let metrics = server.metrics().await?;
    let served = |direction| metrics.sum("weft_requests_total", &[("direction", direction), ("response_class", "2xx")]);
    assert_eq!((served("outbound"), served("inbound")), (2.0, 2.0), "it passes both directions' rules");
    let peer = identity("reviews");
    assert_eq!(metrics.sum("weft_requests_total", &[("direction", "inbound"), ("peer", &peer)]), 2.0);
    Ok(())
}

pub(crate) async fn a_destination_outside_the_mesh_passes_through_as_it_is() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    let client = mesh.add(Spec::client("client")).await?;
    let outsider = mesh.add_outsider("outsider").await?;
    let mut command = std::process::Command::new(Programs::find()?.shop);
    command.args(["reviews", "--admin", "unix:/run/app.sock"]);
    outsider.spawn("app", command).await?;
    let bridge = mesh.sandbox().capture().await?;
    for address in outsider.addresses().both() {
        let target = format!("http://{}/reviews", SocketAddr::new(address, 8080));
        wait::until(LIMIT, &format!("{target} is served"), async || {
            Ok(client.probe(&target, &[]).await?.ok.then_some(()))
        })
        .await?;
    }
    assert!(bridge.stop().contains(b"weft-shop-plaintext-reviews"), "nobody there could decrypt it");
    let metrics = client.metrics().await?;
    let connections = [("direction", "outbound"), ("tls", "none")];
    assert!(metrics.sum("weft_connections_total", &connections) >= 2.0, "it did pass the sidecar");
    Ok(())
}

pub(crate) async fn the_sidecars_own_ports_are_no_destination() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    let server = mesh.add(Spec::server("reviews-0", "reviews", "v1")).await?;
    let outsider = mesh.add_outsider("outsider").await?;
    for address in server.pod().addresses().both() {
        let answer = Call::get("/reviews").inside(&outsider, SocketAddr::new(address, 8080)).await?;
        assert_eq!(answer.status, 200, "counter-proof: the application's port is served");
        for port in [15001, 15006] {
            let said = knock(&outsider, SocketAddr::new(address, port)).await?;
            assert_eq!(said, b"", "{address} port {port} from another pod");
            // Without a redirect the destination is the port itself: a sidecar that connected there would call itself for ever.
            let said = knock(server.pod(), SocketAddr::new(address, port)).await?;
            assert_eq!(said, b"", "{address} port {port} from inside");
        }
    }
    let outcome = server.probe("http://reviews/reviews", &[]).await?;
    assert!(outcome.ok, "the sidecar goes on: {outcome:?}");
    Ok(())
}

/// What comes back for an HTTP request on a fresh connection, up to its end or 2 s of silence.
async fn knock(pod: &Pod, address: SocketAddr) -> Result<Vec<u8>, weft_sandbox::Error> {
    pod.run_async(move || async move {
        let mut said = Vec::new();
        let conversation = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET /reviews HTTP/1.1\r\nHost: reviews\r\nConnection: close\r\n\r\n").await?;
            stream.read_to_end(&mut said).await
        };
        // An error is a refusal, as silence is.
        let _ = tokio::time::timeout(Duration::from_secs(2), conversation).await;
        said
    })
    .await
}

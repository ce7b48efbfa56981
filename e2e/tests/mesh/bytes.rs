//! Connections that are bytes to the mesh: declared so, or found out; the application's own TLS among them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_e2e::Mesh;
use weft_e2e::yaml::{mesh_tls, service};
use weft_local_mesh::Spec;
use weft_sandbox::testing::{self, Failure, TestResult};

use super::sockets::{connect, listen};

/// How long one conversation may take.
const LIMIT: Duration = Duration::from_secs(60);

/// More than all the buffers on the way hold.
const MUCH: usize = 16 << 20;

pub(crate) async fn a_side_that_has_ended_still_hears_the_other() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    // One port is declared to be bytes; of the other nothing is known.
    let ports = [("store", 9000, "tcp"), ("unknown", 9001, "example.com/unknown")];
    mesh.serve(&ports.map(|(name, port, protocol)| service(name, "app: store", port, port, protocol))).await?;
    mesh.apply("tls.yaml", &mesh_tls("Strict")).await?;
    let server = mesh.add(Spec::client("store")).await?;
    let client = mesh.add(Spec::client("client")).await?;
    let mut conversations = 0.0;
    for (name, port, _) in ports {
        let listener = listen(server.pod(), port).await?;
        for address in mesh.service_addresses(name).await? {
            for caller_ends_first in [true, false] {
                let conversation = async {
                    let mut caller = connect(client.pod(), SocketAddr::new(address, port)).await?;
                    let (mut called, _) = listener.accept().await?;
                    called.write_all(b"the server speaks first").await?;
                    let mut greeting = [0; 23];
                    caller.read_exact(&mut greeting).await?;
                    assert_eq!(&greeting, b"the server speaks first");
                    let (first, second) =
                        if caller_ends_first { (&mut caller, &mut called) } else { (&mut called, &mut caller) };
                    pour(first, second).await?;
                    pour(second, first).await
                };
                tokio::time::timeout(LIMIT, conversation).await??;
                conversations += 1.0;
            }
        }
    }
    let metrics = server.metrics().await?;
    let inbound = |tls| metrics.sum("weft_connections_total", &[("direction", "inbound"), ("tls", tls)]);
    assert_eq!((inbound("mutual"), inbound("none")), (conversations, 0.0));
    Ok(())
}

/// Much from one side to the other, and the end.
async fn pour(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) -> Result<(), Failure> {
    let data: Vec<u8> = (0..MUCH).map(|at| (at % 251) as u8).collect();
    let send = async {
        from.write_all(&data).await?;
        from.shutdown().await
    };
    let mut received = Vec::new();
    let (sent, read) = tokio::join!(send, to.read_to_end(&mut received));
    sent?;
    read?;
    assert!(received == data, "{} bytes arrived of {MUCH}, or others", received.len());
    Ok(())
}

pub(crate) async fn an_applications_own_tls_passes_as_it_is() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    let ports = [("vault", 443, "https"), ("unknown", 444, "example.com/unknown")];
    mesh.serve(&ports.map(|(name, port, protocol)| service(name, "app: vault", port, port, protocol))).await?;
    mesh.apply("tls.yaml", &mesh_tls("Strict")).await?;
    let server = mesh.add(Spec::client("vault")).await?;
    let client = mesh.add(Spec::client("client")).await?;
    let outsider = mesh.add_outsider("outsider").await?;
    let own = OwnTls::new()?;

    let (bridge, inside) = (mesh.sandbox().capture().await?, client.pod().capture().await?);
    for (name, port, _) in ports {
        let listener = listen(server.pod(), port).await?;
        for address in mesh.service_addresses(name).await? {
            let address = SocketAddr::new(address, port);
            tokio::time::timeout(LIMIT, own.exchange(connect(client.pod(), address).await?, &listener)).await??;
        }
    }
    let (bridge, inside) = (bridge.stop(), inside.stop());
    assert!(!bridge.contains(NAME.as_bytes()), "between the pods even the name asked for is encrypted");
    assert!(inside.contains(NAME.as_bytes()), "counter-proof: it is readable where the application says it");
    let metrics = server.metrics().await?;
    let inbound = |tls| metrics.sum("weft_connections_total", &[("direction", "inbound"), ("tls", tls)]);
    assert_eq!((inbound("mutual"), inbound("none")), (4.0, 0.0), "inside the mesh's own TLS");

    // Nobody there speaks the mesh's TLS: the application's own is all there is.
    let listener = listen(&outsider, 443).await?;
    for address in outsider.addresses().both() {
        let caller = connect(client.pod(), SocketAddr::new(address, 443)).await?;
        tokio::time::timeout(LIMIT, own.exchange(caller, &listener)).await??;
    }
    Ok(())
}

/// The name in the application's certificate.
const NAME: &str = "vault.example.com";

/// An application's certificate, and who trusts only that.
struct OwnTls {
    certificate: CertificateDer<'static>,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl OwnTls {
    fn new() -> Result<Self, Failure> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .map_err(|error| Failure::Error(error.to_owned()))?;
        let mut server =
            rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.clone()], key)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone())?;
        let mut client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        server.alpn_protocols = vec![b"h2".to_vec()];
        client.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        let (acceptor, connector) = (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));
        Ok(Self { certificate, acceptor, connector })
    }

    /// A handshake, a question and an answer.
    async fn exchange(&self, caller: tokio::net::TcpStream, listener: &tokio::net::TcpListener) -> Result<(), Failure> {
        let name = ServerName::try_from(NAME)?;
        let called = async {
            let mut called = self.acceptor.accept(listener.accept().await?.0).await?;
            let mut question = [0; 8];
            called.read_exact(&mut question).await?;
            called.write_all(&question).await?;
            called.shutdown().await
        };
        let calling = async {
            let mut caller = self.connector.connect(name, caller).await?;
            let session = caller.get_ref().1;
            assert_eq!(session.peer_certificates(), Some(std::slice::from_ref(&self.certificate)));
            assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]), "what the two agree on is theirs");
            caller.write_all(b"question").await?;
            let mut answer = Vec::new();
            caller.read_to_end(&mut answer).await?;
            assert_eq!(answer, b"question");
            std::io::Result::Ok(())
        };
        tokio::try_join!(called, calling)?;
        Ok(())
    }
}

use super::*;
use crate::tls::testing::{TestCa, Who, alice, bob};
use crate::tls::verifier::expected_peer;
use crate::tls::*;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use weft_xds::names::{ALPN_H2, ALPN_HTTP1, ALPN_TCP};

const BOB: &str = "spiffe://weft.local/ns/shop/sa/bob";
const BOB_POD: &str = "bob-v1-0.bob-v1.shop.pod.weft.mesh";

struct Pair {
    client: Result<TlsStream<DuplexStream>, HandshakeError>,
    server: Result<TlsStream<DuplexStream>, HandshakeError>,
}

/// A handshake between two sidecars: what each side made of it.
async fn shake(client: &Arc<LocalIdentity>, server: &Arc<LocalIdentity>, expected: ExpectedPeer) -> Pair {
    let upstream = UpstreamTls::mesh("p80.bob.shop.svc", &[ALPN_HTTP1]).unwrap();
    let downstream = DownstreamTls::mesh(&[ALPN_HTTP1, ALPN_H2, ALPN_TCP]);
    let (near, far) = duplex(64 * 1024);
    let tls = upstream.client(client, expected, None);
    let (client, server) = tokio::join!(
        async {
            let mut stream = connect(near, &tls).await?;
            // The server's verdict about us arrives with its first bytes.
            stream.flush().await?;
            Ok(stream)
        },
        accept(far, Vec::new(), &downstream, server),
    );
    Pair { client, server }
}

fn bob_expected() -> ExpectedPeer {
    expected_peer(BOB, Some(BOB_POD)).unwrap()
}

async fn established() -> (TlsStream<DuplexStream>, TlsStream<DuplexStream>) {
    let ca = TestCa::new();
    let pair = shake(&ca.identity(&alice()), &ca.identity(&bob()), bob_expected()).await;
    (pair.client.unwrap(), pair.server.unwrap())
}

#[tokio::test]
async fn two_sidecars_know_each_other() {
    let (mut client, mut server) = established().await;
    assert_eq!(client.alpn(), Some(ALPN_HTTP1.as_bytes()));
    assert_eq!(server.alpn(), Some(ALPN_HTTP1.as_bytes()));
    assert_eq!(server.sni().map(|sni| &**sni), Some("p80.bob.shop.svc"));
    assert_eq!(client.version(), Some(ProtocolVersion::TLSv1_3));
    let group = client.session.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(&*client.peer().unwrap().spiffe, BOB);
    assert_eq!(server.peer().unwrap().pod, "alice-v1-0");
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    let mut bytes = [0; 4];
    server.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"ping");
}

#[tokio::test]
async fn another_identity_or_pod_at_the_address_is_refused_and_named() {
    let ca = TestCa::new();
    let (alice, bob) = (ca.identity(&alice()), ca.identity(&bob()));
    let expected = expected_peer("spiffe://weft.local/ns/shop/sa/carol", None).unwrap();
    let error = shake(&alice, &bob, expected).await.client.err().unwrap();
    assert!(matches!(error, HandshakeError::Peer(PeerError::Identity { .. })));
    let error = error.to_string();
    assert!(error.contains("sa/carol") && error.contains("sa/bob"), "{error}");

    let expected = expected_peer(BOB, Some("bob-v1-1.bob-v1.shop.pod.weft.mesh")).unwrap();
    let pair = shake(&alice, &bob, expected).await;
    let error = pair.client.err().unwrap();
    assert!(matches!(error, HandshakeError::Peer(PeerError::Pod { .. })));
    assert!(error.to_string().contains("bob-v1-1") && error.to_string().contains("bob-v1-0"));
    assert!(pair.server.is_err(), "the server learns of it by an alert");
}

#[tokio::test]
async fn a_peer_of_another_authority_is_refused_on_both_sides() {
    let (ours, theirs) = (TestCa::new(), TestCa::new());
    let (alice, bob) = (ours.identity(&alice()), theirs.identity(&bob()));
    let pair = shake(&alice, &bob, bob_expected()).await;
    let error = pair.client.err().unwrap();
    assert!(matches!(error, HandshakeError::Peer(PeerError::UnknownIssuer { .. })), "{error}");

    // The client trusts both, the server only its own.
    alice.set_bundle(TrustBundle::new(vec![ours.root(), theirs.root()]).unwrap());
    let pair = shake(&alice, &bob, bob_expected()).await;
    let error = pair.server.err().unwrap();
    assert!(matches!(error, HandshakeError::Peer(PeerError::UnknownIssuer { .. })), "{error}");
    // With TLS 1.3 the client has finished by then; its first read tells.
    let error = pair.client.unwrap().read_u8().await.unwrap_err().to_string();
    assert!(error.contains("refused our certificate"), "{error}");
}

async fn server_error(ca: &TestCa, server: &Who) -> HandshakeError {
    let pair = shake(&ca.identity(&alice()), &ca.identity(server), bob_expected()).await;
    pair.client.err().unwrap()
}

#[tokio::test]
async fn an_expired_certificate_is_refused_with_both_clocks() {
    let ca = TestCa::new();
    let mut expired = bob();
    expired.not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    expired.not_before = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    let error = server_error(&ca, &expired).await.to_string();
    assert!(error.contains(BOB) && error.contains("2023-11-14T22:13:20Z"), "{error}");
    let mut early = bob();
    early.not_before = SystemTime::UNIX_EPOCH + Duration::from_secs(4_100_000_000);
    early.not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(4_100_000_001);
    let error = server_error(&ca, &early).await.to_string();
    assert!(error.contains("valid from 2099-12-03"), "{error}");
}

#[tokio::test]
async fn a_certificate_carries_exactly_one_spiffe_id_of_our_domain() {
    let ca = TestCa::new();
    let mut two = bob();
    two.uris.push("spiffe://weft.local/ns/shop/sa/alice".into());
    let error = server_error(&ca, &two).await;
    assert!(matches!(error, HandshakeError::Peer(PeerError::NotOneSpiffeId { .. })), "{error}");
    let mut foreign = bob();
    foreign.uris = vec!["spiffe://other.example/ns/shop/sa/bob".into()];
    let error = server_error(&ca, &foreign).await;
    assert!(matches!(error, HandshakeError::Peer(PeerError::TrustDomain { .. })), "{error}");
}

#[tokio::test]
async fn an_endpoint_of_which_nobody_said_who_it_is_is_refused() {
    let ca = TestCa::new();
    let (alice, bob) = (ca.identity(&alice()), ca.identity(&bob()));
    let error = shake(&alice, &bob, ExpectedPeer::default()).await.client.err().unwrap();
    assert!(matches!(error, HandshakeError::Peer(PeerError::NobodyExpected { .. })), "{error}");
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let ca = TestCa::new();
    let downstream = DownstreamTls::mesh(&[ALPN_HTTP1]);
    let (near, far) = duplex(64 * 1024);
    let upstream = UpstreamTls::from_proto(&Default::default(), "").unwrap();
    let tls = upstream.client(&LocalIdentity::new(), ExpectedPeer::default(), None);
    let bob = ca.identity(&bob());
    let (client, server) = tokio::join!(connect(near, &tls), accept(far, Vec::new(), &downstream, &bob));
    assert!(server.err().unwrap().to_string().contains("showed no certificate"));
    let error = client.unwrap().read_u8().await.unwrap_err().to_string();
    assert!(error.contains("requires a client certificate"), "{error}");
}

#[tokio::test]
async fn rotation_of_certificate_and_root_needs_no_new_configuration() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let both = || TrustBundle::new(vec![old.root(), new.root()]).unwrap();
    let (alice_id, bob_id) = (old.identity(&alice()), old.identity(&bob()));
    let upstream = UpstreamTls::mesh("p80.bob.shop.svc", &[ALPN_TCP]).unwrap();
    let downstream = DownstreamTls::mesh(&[ALPN_TCP]);
    let tls = upstream.client(&alice_id, bob_expected(), None);
    let meet = async || {
        let (near, far) = duplex(64 * 1024);
        let (client, server) = tokio::join!(connect(near, &tls), accept(far, Vec::new(), &downstream, &bob_id));
        (client.is_ok(), server.is_ok())
    };
    assert_eq!(meet().await, (true, true));
    alice_id.set_bundle(both());
    bob_id.set_bundle(both());
    assert_eq!(meet().await, (true, true));
    bob_id.install(new.leaf(&bob()), None);
    assert_eq!(meet().await, (true, true), "one side is signed by the new root");
    alice_id.install(new.leaf(&alice()), Some(new.bundle()));
    bob_id.set_bundle(new.bundle());
    assert_eq!(meet().await, (true, true));
    alice_id.set_bundle(old.bundle());
    assert!(!meet().await.0, "the bundle in force decides");
}

#[tokio::test]
async fn before_a_bundle_arrives_nobody_is_trusted() {
    let ca = TestCa::new();
    let alice_id = LocalIdentity::new();
    alice_id.install(ca.leaf(&alice()), None);
    let pair = shake(&alice_id, &ca.identity(&bob()), bob_expected()).await;
    assert!(matches!(pair.client.err(), Some(HandshakeError::Peer(PeerError::NoBundle))));
}

#[tokio::test]
async fn bytes_read_by_detection_belong_to_the_handshake() {
    let ca = TestCa::new();
    let upstream = UpstreamTls::mesh("p80.bob.shop.svc", &[ALPN_H2]).unwrap();
    let downstream = DownstreamTls::mesh(&[ALPN_H2]);
    let tls = upstream.client(&ca.identity(&alice()), bob_expected(), None);
    let bob = ca.identity(&bob());
    let (near, mut far) = duplex(64 * 1024);
    let (client, server) = tokio::join!(connect(near, &tls), async {
        let mut received = vec![0; 700];
        far.read_exact(&mut received).await.unwrap();
        accept(far, received, &downstream, &bob).await
    });
    assert_eq!(client.unwrap().alpn(), Some(ALPN_H2.as_bytes()));
    assert!(server.unwrap().peer().is_some());
}

#[tokio::test]
async fn data_that_comes_with_the_finished_is_read() {
    let ca = TestCa::new();
    let upstream = UpstreamTls::mesh("p80.bob.shop.svc", &[ALPN_H2]).unwrap();
    let downstream = DownstreamTls::mesh(&[ALPN_H2]);
    let tls = upstream.client(&ca.identity(&alice()), bob_expected(), None);
    let bob = ca.identity(&bob());
    let (near, far) = duplex(64 * 1024);
    let (mut held, relay) = duplex(64 * 1024);
    // Everything the client sends after its hello reaches the server in one piece.
    let relayed = async {
        let (mut from_client, mut to_client) = tokio::io::split(far);
        let (mut from_server, mut to_server) = tokio::io::split(relay);
        let down = tokio::io::copy(&mut from_server, &mut to_client);
        let up = async {
            let mut chunk = vec![0; 64 * 1024];
            let hello = from_client.read(&mut chunk).await.unwrap();
            to_server.write_all(&chunk[..hello]).await.unwrap();
            let mut rest = Vec::new();
            while !rest.ends_with(b"\0end") {
                let read = from_client.read(&mut chunk).await.unwrap();
                rest.extend_from_slice(&chunk[..read]);
                // Finished and data have both been sent once the client says so by closing its side.
                if read == 0 {
                    break;
                }
            }
            to_server.write_all(&rest).await.unwrap();
            std::future::pending::<()>().await;
        };
        let _ = tokio::join!(down, up);
    };
    let client = async {
        let mut client = connect(near, &tls).await.unwrap();
        client.write_all(b"early").await.unwrap();
        client.shutdown().await.unwrap();
        std::future::pending::<()>().await;
    };
    let server = async {
        let mut server = accept(&mut held, Vec::new(), &downstream, &bob).await.unwrap();
        let mut bytes = Vec::new();
        server.read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    tokio::select! {
        _ = relayed => unreachable!(),
        _ = client => unreachable!(),
        bytes = server => assert_eq!(bytes, b"early"),
    }
}

#[tokio::test]
async fn half_a_connection_closes_and_the_other_half_goes_on() {
    let (mut client, mut server) = established().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert!(client.write_all(b"more").await.is_err());
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error_once_data_flowed() {
    let (client, mut server) = established().await;
    drop(client);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0, "nothing can have been cut off");

    let (mut client, mut server) = established().await;
    client.write_all(b"first half").await.unwrap();
    client.flush().await.unwrap();
    drop(client);
    let mut bytes = Vec::new();
    let error = server.read_to_end(&mut bytes).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(bytes, b"first half");
}

/// Counts writes.
struct Counting {
    io: DuplexStream,
    writes: usize,
}

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.writes += 1;
        Pin::new(&mut self.io).poll_write(cx, data)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes += 1;
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        Pin::new(&mut self.io).poll_write(cx, &all)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

async fn counted(room: usize) -> (TlsStream<Counting>, TlsStream<DuplexStream>) {
    let ca = TestCa::new();
    let upstream = UpstreamTls::mesh("p80.bob.shop.svc", &[ALPN_TCP]).unwrap();
    let downstream = DownstreamTls::mesh(&[ALPN_TCP]);
    let tls = upstream.client(&ca.identity(&alice()), bob_expected(), None);
    let bob = ca.identity(&bob());
    let (near, far) = duplex(room);
    let near = Counting { io: near, writes: 0 };
    let (client, server) = tokio::join!(connect(near, &tls), accept(far, Vec::new(), &downstream, &bob));
    let mut client = client.unwrap();
    client.io.writes = 0;
    (client, server.unwrap())
}

#[tokio::test]
async fn one_flush_is_one_write_and_small_writes_share_a_record() {
    let (mut client, mut server) = counted(1024 * 1024).await;
    for _ in 0..10 {
        client.write_all(&[7; 100]).await.unwrap();
    }
    assert_eq!(client.io.writes, 0);
    client.flush().await.unwrap();
    assert_eq!(client.io.writes, 1);
    let mut bytes = vec![0; 4096];
    assert_eq!(server.read(&mut bytes).await.unwrap(), 1000, "one record");
    // Several records, one write.
    client.write_all(&[1; 100]).await.unwrap();
    client.write_all(&[2; 40_000]).await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(client.io.writes, 2);
    let mut bytes = vec![0; 40_100];
    server.read_exact(&mut bytes).await.unwrap();
    assert!(bytes[..100].iter().all(|byte| *byte == 1) && bytes[100..].iter().all(|byte| *byte == 2));
}

#[tokio::test]
async fn a_reader_that_stalls_pauses_its_writer() {
    let (mut client, mut server) = counted(4096).await;
    let block = vec![3; 10_000];
    let mut accepted = 0;
    let waiting = loop {
        let mut write = tokio_test_poll(client.write(&block));
        match write.take() {
            Some(taken) => accepted += taken.unwrap(),
            None => break accepted,
        }
    };
    assert!(waiting < 256 * 1024, "{waiting}");
    let (written, read) = tokio::join!(
        async {
            client.flush().await.unwrap();
            client.shutdown().await.unwrap();
        },
        async {
            let mut bytes = Vec::new();
            server.read_to_end(&mut bytes).await.unwrap();
            bytes
        }
    );
    let () = written;
    assert_eq!(read.len(), waiting);
}

/// Polls once.
fn tokio_test_poll<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn much_data_flows_both_ways_at_once() {
    let (client, server) = established().await;
    let data: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    let echo = async {
        let (mut read, mut write) = tokio::io::split(server);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let talk = async {
        let (mut read, mut write) = tokio::io::split(client);
        let send = async {
            // Odd sizes, so that records and buffers never line up.
            for chunk in data.chunks(7_919) {
                write.write_all(chunk).await.unwrap();
            }
            write.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let receive = read.read_to_end(&mut back);
        let ((), received) = tokio::join!(send, receive);
        received.unwrap();
        back
    };
    let ((), back) = tokio::join!(echo, talk);
    assert!(back == data);
}

#[tokio::test]
async fn plaintext_to_a_tls_port_is_named_as_such() {
    let ca = TestCa::new();
    let bob = ca.identity(&bob());
    let downstream = DownstreamTls::mesh(&[ALPN_TCP]);
    let (mut near, far) = duplex(4096);
    near.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let error = accept(far, Vec::new(), &downstream, &bob).await.err().unwrap().to_string();
    assert!(error.contains("does not speak TLS"), "{error}");
    let (near, far) = duplex(4096);
    drop(near);
    let error = accept(far, Vec::new(), &downstream, &bob).await.err().unwrap();
    assert!(matches!(error, HandshakeError::Closed));
}

mod contexts {
    use super::*;
    use rustls_pki_types::CertificateDer;
    use weft_xds::yaml;

    /// Envoy's contexts with certificate files, as in a static bootstrap.
    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new(ca: &TestCa, who: &Who) -> Self {
            let files = Self { folder: tempfile::tempdir().unwrap() };
            files.write(ca, who);
            files
        }

        fn write(&self, ca: &TestCa, who: &Who) {
            let (chain, key) = ca.issue(who);
            let pem = |kind: &str, der: &[u8]| {
                use base64::Engine as _;
                let text = base64::engine::general_purpose::STANDARD.encode(der);
                format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
            };
            let write = |name: &str, text: String| {
                let new = self.folder.path().join("new");
                std::fs::write(&new, text).unwrap();
                std::fs::rename(new, self.folder.path().join(name)).unwrap();
            };
            let certificate = |der: &CertificateDer<'_>| pem("CERTIFICATE", der);
            write("chain.pem", chain.iter().map(certificate).collect());
            write("key.pem", pem("PRIVATE KEY", key.secret_der()));
            write("ca.pem", certificate(&ca.root()));
        }

        fn certificate(&self) -> String {
            let folder = self.folder.path().display();
            format!(
                "tls_certificates: [{{certificate_chain: {{filename: {folder}/chain.pem}}, private_key: {{filename: {folder}/key.pem}}}}]"
            )
        }

        fn ca(&self) -> String {
            format!("trusted_ca: {{filename: {}/ca.pem}}", self.folder.path().display())
        }
    }

    async fn meet(
        client: &str,
        server: &str,
    ) -> Result<(TlsStream<DuplexStream>, TlsStream<DuplexStream>), HandshakeError> {
        let upstream = UpstreamTls::from_proto(&yaml::from_str(client).unwrap(), "up").unwrap();
        let downstream = DownstreamTls::from_proto(&yaml::from_str(server).unwrap(), "down").unwrap();
        meet_with(&upstream, &downstream).await
    }

    async fn meet_with(
        upstream: &UpstreamTls,
        downstream: &DownstreamTls,
    ) -> Result<(TlsStream<DuplexStream>, TlsStream<DuplexStream>), HandshakeError> {
        let local = LocalIdentity::new();
        let tls = upstream.client(&local, ExpectedPeer::default(), None);
        let (near, far) = duplex(64 * 1024);
        let (client, server) = tokio::join!(connect(near, &tls), accept(far, Vec::new(), downstream, &local));
        Ok((client?, server?))
    }

    #[tokio::test]
    async fn sni_versions_and_protocols_are_those_configured() {
        let files = Files::new(&TestCa::new(), &bob());
        let server = format!("common_tls_context: {{{}, alpn_protocols: [h2, http/1.1]}}", files.certificate());
        let client = format!(
            "sni: web.example\ncommon_tls_context: {{alpn_protocols: [http/1.1], tls_params: {{tls_maximum_protocol_version: TLSv1_2}}, validation_context: {{{}}}}}",
            files.ca()
        );
        let (near, far) = meet(&client, &server).await.unwrap();
        assert_eq!(near.version(), Some(ProtocolVersion::TLSv1_2));
        assert_eq!(near.alpn(), Some(&b"http/1.1"[..]));
        assert_eq!(far.sni().map(|sni| &**sni), Some("web.example"));
        assert!(far.peer().is_none());
    }

    #[tokio::test]
    async fn certificates_and_roots_are_those_of_the_files_at_the_time() {
        let (old, new) = (TestCa::new(), TestCa::new());
        let (client, server) = (Files::new(&old, &alice()), Files::new(&old, &bob()));
        let context = format!("common_tls_context: {{validation_context: {{{}}}}}", client.ca());
        let upstream = UpstreamTls::from_proto(&yaml::from_str(&context).unwrap(), "up").unwrap();
        let context = format!("common_tls_context: {{{}}}", server.certificate());
        let downstream = DownstreamTls::from_proto(&yaml::from_str(&context).unwrap(), "down").unwrap();
        meet_with(&upstream, &downstream).await.unwrap();
        server.write(&new, &bob());
        let refuses = async || {
            matches!(
                meet_with(&upstream, &downstream).await,
                Err(HandshakeError::Peer(PeerError::UnknownIssuer { .. }))
            )
        };
        until("the server has the new certificate", refuses).await;
        client.write(&new, &alice());
        until("the client has the new root", async || meet_with(&upstream, &downstream).await.is_ok()).await;
    }

    /// Files are watched by threads, in real time.
    async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let ends = std::time::Instant::now() + Duration::from_secs(60);
        while !holds().await {
            assert!(std::time::Instant::now() < ends, "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_server_name_can_be_required() {
        let files = Files::new(&TestCa::new(), &bob());
        let server = format!("require_sni: true\ncommon_tls_context: {{{}}}", files.certificate());
        assert!(meet("sni: web.example", &server).await.is_ok());
        let error = meet("{}", &server).await.err().unwrap().to_string();
        assert!(error.contains("UnrecognisedName"), "the client is told: {error}");
    }

    #[tokio::test]
    async fn without_a_common_protocol_the_handshake_goes_on_without_one() {
        let files = Files::new(&TestCa::new(), &bob());
        let server = format!("common_tls_context: {{{}, alpn_protocols: [h2]}}", files.certificate());
        let (near, far) = meet("common_tls_context: {alpn_protocols: [other]}", &server).await.unwrap();
        assert_eq!((near.alpn(), far.alpn()), (None, None));
        assert!(far.sni().is_none());
    }

    #[tokio::test]
    async fn names_are_matched_in_both_directions() {
        let ca = TestCa::new();
        let (a, b) = (Files::new(&ca, &alice()), Files::new(&ca, &bob()));
        let context = |files: &Files, san: &str| {
            format!(
                "common_tls_context: {{{}, validation_context: {{{}, match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: '{san}'}}}}]}}}}",
                files.certificate(),
                files.ca()
            )
        };
        let alice = "spiffe://weft.local/ns/shop/sa/alice";
        let required = |server: String| format!("{server}\nrequire_client_certificate: true");
        let (near, far) = meet(&context(&a, BOB), &required(context(&b, alice))).await.unwrap();
        assert_eq!(&*near.peer().unwrap().spiffe, BOB);
        assert_eq!(&*far.peer().unwrap().spiffe, alice);
        let error = meet(&context(&a, alice), &required(context(&b, alice))).await.err().unwrap();
        assert!(matches!(error, HandshakeError::Peer(PeerError::SubjectAltNames { .. })), "{error}");
        let error = meet(&context(&a, BOB), &required(context(&b, BOB))).await.err().unwrap();
        assert!(matches!(error, HandshakeError::Peer(PeerError::SubjectAltNames { .. })), "{error}");
    }

    #[test]
    fn a_server_without_certificate_and_a_bad_sni_are_refused() {
        let error = DownstreamTls::from_proto(&Default::default(), "t").unwrap_err();
        assert_eq!(error.path, "t.common_tls_context.tls_certificates");
        let context = yaml::from_str("sni: 'a b'").unwrap();
        let error = UpstreamTls::from_proto(&context, "t").unwrap_err();
        assert_eq!(error.path, "t.sni");
    }
}

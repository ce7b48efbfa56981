//! Probes against applications of every kind, on loopback.

use std::net::Ipv4Addr;
use std::sync::Arc;

use http::StatusCode;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::provider::provider;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An application that reads one request's head and answers with these bytes; its port, and what it read.
async fn application(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let read = tokio::spawn(async move { converse(listener.accept().await.unwrap().0, answer).await });
    (port, read)
}

async fn converse(mut io: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if io.read_buf(&mut head).await.unwrap() == 0 {
            break;
        }
    }
    io.write_all(answer.as_bytes()).await.unwrap();
    io.shutdown().await.unwrap();
    String::from_utf8(head).unwrap()
}

fn probes(port: u16, how: &str) -> Probes {
    Probes::parse(&format!(r#"{{"/probe/app/readiness": {{"port": {port}, "timeoutSeconds": 30, {how}}}}}"#)).unwrap()
}

async fn ask(probes: &Probes) -> Said {
    probes.ask("/probe/app/readiness", HERE).await.unwrap()
}

#[tokio::test]
async fn an_http_probe_is_asked_with_its_own_path_and_headers_and_its_status_comes_back() {
    let (port, read) = application("HTTP/1.1 418 Teapot\r\ncontent-length: 3\r\n\r\ntea").await;
    let how = r#""httpGet": {"path": "/healthz?full=1", "port": "http", "httpHeaders": [
        {"name": "Host", "value": "shop.example"}, {"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}]}"#;
    let said = ask(&probes(port, how)).await;
    assert_eq!((said.status, said.text.as_str()), (StatusCode::IM_A_TEAPOT, "tea"));
    let head = read.await.unwrap().to_lowercase();
    assert!(head.starts_with("get /healthz?full=1 http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: shop.example\r\n") && head.contains("user-agent: kube-probe/"), "{head}");
    assert_eq!(head.matches("\r\nx-a: ").count(), 2, "{head}");
}

#[tokio::test]
async fn an_https_probe_takes_any_certificate() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider().clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let read = tokio::spawn(async move {
        let io = TlsAcceptor::from(Arc::new(config)).accept(listener.accept().await.unwrap().0).await.unwrap();
        converse(io, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await
    });
    let said = ask(&probes(port, r#""httpGet": {"path": "/healthz", "scheme": "HTTPS"}"#)).await;
    assert_eq!((said.status, said.text.as_str()), (StatusCode::OK, "ok"));
    assert!(read.await.unwrap().starts_with("GET /healthz HTTP/1.1\r\n"));
}

#[tokio::test]
async fn an_answer_without_end_is_no_failure() {
    let (port, _read) = application("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffff\r\nendless").await;
    assert_eq!(ask(&probes(port, r#""httpGet": {}"#)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_port_on_which_nobody_listens_fails_with_words_that_say_so() {
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    for how in [r#""httpGet": {"path": "/"}"#, r#""tcpSocket": {}"#, r#""grpc": {}"#] {
        let said = ask(&probes(port, how)).await;
        assert_eq!(said.status, StatusCode::SERVICE_UNAVAILABLE, "{how}");
        assert!(said.text.contains(&format!("port {port}: ")), "{}", said.text);
    }
}

#[tokio::test]
async fn a_tcp_probe_only_connects() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(ask(&probes(port, r#""tcpSocket": {"port": 1}"#)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_silent_application_has_as_long_as_its_probe_says() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = format!(r#"{{"/probe/app/liveness": {{"port": {port}, "timeoutSeconds": 1, "httpGet": {{}}}}}}"#);
    let said = Probes::parse(&text).unwrap().ask("/probe/app/liveness", HERE).await.unwrap();
    assert_eq!(said.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(said.text.contains("no answer within 1 s"), "{}", said.text);
}

#[tokio::test]
async fn a_path_that_the_pod_does_not_declare_is_asked_of_nobody() {
    assert_eq!(probes(1, r#""tcpSocket": {}"#).ask("/probe/app/liveness", HERE).await, None);
}

/// A gRPC server whose health service answers with this gRPC status, and this health status if any.
async fn health(code: &'static str, status: Option<u8>) -> u16 {
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Frame;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            let asked = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(&asked[..], b"\x00\x00\x00\x00\x06\x0a\x04cart");
            let data = status.map(|status| Frame::data(bytes::Bytes::from(vec![0, 0, 0, 0, 2, 8, status])));
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", code.parse().unwrap());
            let frames = data.into_iter().chain([Frame::trailers(trailers)]).map(Ok::<_, std::convert::Infallible>);
            let body = StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>()));
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        });
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(io);
        drop(hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service).await);
    });
    port
}

#[tokio::test]
async fn a_grpc_probe_asks_for_the_health_of_the_service_that_it_names() {
    let how = r#""grpc": {"port": 1, "service": "cart"}"#;
    assert_eq!(ask(&probes(health("0", Some(1)).await, how)).await.status, StatusCode::OK);
    for (code, status, says) in [("0", Some(2), "health status 2"), ("12", None, "gRPC status 12")] {
        let said = ask(&probes(health(code, status).await, how)).await;
        assert_eq!(said.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(said.text.contains(says), "{}", said.text);
    }
}

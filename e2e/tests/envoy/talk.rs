//! Asking: a request out, its answer in.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weft_sandbox::Pod;
use weft_sandbox::testing::Failure;

use super::answer::Answer;
use super::case::Request;
use super::certificates::Certificates;

/// How long an answer may take, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

/// What is sent through a tunnel, and has to come back.
const TUNNELLED: &[u8] = b"through the tunnel";

/// Asks a program that listens in a pod.
pub(crate) async fn ask(pod: &Pod, certificates: &Certificates, request: &Request) -> Result<Answer, Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, request.port));
    let stream = pod.run(move || std::net::TcpStream::connect(address)).await??;
    stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(stream)?;
    let http2 = request.line.ends_with("HTTP/2");
    let Some(name) = &request.tls else { return within(converse(stream, request, http2)).await };
    let mut client = (*certificates.clients[usize::from(request.certificate)]).clone();
    client.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let handshake =
        TlsConnector::from(std::sync::Arc::new(client)).connect(ServerName::try_from(name.clone())?, stream);
    match tokio::time::timeout(LIMIT, handshake).await? {
        Ok(stream) => within(converse(stream, request, http2)).await,
        Err(_) => Ok(Answer::none("no handshake")),
    }
}

async fn within(work: impl Future<Output = Result<Answer, Failure>>) -> Result<Answer, Failure> {
    tokio::time::timeout(LIMIT, work).await?
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: &Request,
    http2: bool,
) -> Result<Answer, Failure> {
    if http2 { by_http2(stream, request).await } else { as_bytes(stream, request).await }
}

async fn as_bytes(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &Request) -> Result<Answer, Failure> {
    // One that refuses early may close before all is sent; what it said is still read.
    let _ = stream.write_all(&request.bytes()).await;
    let mut received = Vec::new();
    let is_head = request.line.starts_with("HEAD ");
    let mut answer = loop {
        let mut buffer = [0; 16 << 10];
        let ended = match stream.read(&mut buffer).await {
            Ok(0) => true,
            Ok(length) => {
                received.extend_from_slice(&buffer[..length]);
                false
            }
            // TLS refuses a client's certificate only after the handshake.
            Err(error) if received.is_empty() => return Ok(Answer::none(&format!("broken: {:?}", error.kind()))),
            Err(_) => true,
        };
        match parse(&received, is_head, ended) {
            Some(answer) => break answer,
            None if ended => return Ok(Answer::none("closed")),
            None => {}
        }
    };
    let tunnel = answer.status == "101" || (answer.status == "200" && request.line.starts_with("CONNECT "));
    if tunnel {
        stream.write_all(TUNNELLED).await?;
        let mut back = vec![0; TUNNELLED.len()];
        stream.read_exact(&mut back).await?;
        answer.body = String::from_utf8_lossy(&back).into_owned();
    }
    Ok(answer)
}

/// Reads an answer of HTTP/1.1, if it is complete.
fn parse(bytes: &[u8], is_head: bool, ended: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, rest) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 4..]);
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.to_owned();
    let fields: Vec<_> = lines.filter_map(field).collect();
    if status.starts_with('1') && status != "101" {
        let mut answer = parse(rest, is_head, ended)?;
        answer.interim.insert(0, status);
        return Some(answer);
    }
    let mut answer = Answer { status, fields, ..Answer::default() };
    let is_tunnel = answer.status == "101";
    if is_head || is_tunnel || ["204", "304"].contains(&answer.status.as_str()) {
        return Some(answer);
    }
    if answer.field("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        let (body, trailers) = dechunk(&String::from_utf8_lossy(rest))?;
        (answer.body, answer.trailers) = (body, trailers);
        return Some(answer);
    }
    let length = answer.field("content-length").and_then(|length| length.parse::<usize>().ok());
    let complete = match length {
        Some(length) => rest.len() >= length,
        None => ended,
    };
    answer.body = String::from_utf8_lossy(rest).into_owned();
    complete.then_some(answer)
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let name = name.to_ascii_lowercase();
    // Names of options, in either case (RFC 9110 §7.6.1).
    let value = if name == "connection" { value.to_ascii_lowercase() } else { value.to_owned() };
    Some((name, value.trim().to_owned()))
}

/// A chunked body and its trailers, once they are complete.
fn dechunk(mut text: &str) -> Option<(String, Vec<(String, String)>)> {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            let end = format!("\r\n{rest}");
            let (trailers, _) = end.split_once("\r\n\r\n")?;
            return Some((body, trailers.split("\r\n").filter_map(field).collect()));
        }
        body.push_str(rest.get(..size)?);
        text = rest.get(size + 2..)?;
    }
}

async fn by_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: &Request,
) -> Result<Answer, Failure> {
    let (sender, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(async move { connection.await.ok() });
    let answer = exchange(sender, request).await;
    connection.abort();
    Ok(answer.unwrap_or_else(|error| Answer::none(&format!("stream broken: {:?}", error.reason()))))
}

async fn exchange(sender: h2::client::SendRequest<Bytes>, request: &Request) -> Result<Answer, h2::Error> {
    let mut words = request.line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut authority, mut head) = ("x.test", http::Request::builder().method(method));
    for (name, value) in request.fields.iter().filter_map(|line| line.split_once(": ")) {
        match name {
            "host" => authority = value,
            name => head = head.header(name, value),
        }
    }
    let head = head.uri(format!("http://{authority}{path}")).body(()).expect("a case's request is well-formed");
    let (response, mut body) = sender.ready().await?.send_request(head, request.body.is_empty())?;
    if !request.body.is_empty() {
        body.send_data(Bytes::from(request.body.clone()), true)?;
    }
    let (head, mut body) = response.await?.into_parts();
    let mut answer = Answer { status: head.status.as_str().to_owned(), ..Answer::default() };
    answer.fields = list(&head.headers);
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        answer.body.push_str(&String::from_utf8_lossy(&data));
    }
    answer.trailers = body.trailers().await?.as_ref().map(list).unwrap_or_default();
    Ok(answer)
}

fn list(fields: &HeaderMap) -> Vec<(String, String)> {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    fields.iter().map(field).collect()
}

//! What a client's first bytes are.
//!
//! Time alone never classifies: a budget only ends the waiting, it never turns silence into a protocol.

use crate::stream::BoxIo;
use crate::stream::sweep::{Deadline, race};
use std::io;
use tokio::io::AsyncReadExt;

/// The opening of an HTTP/2 connection (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest request line still recognised as HTTP/1.1 without having seen its end.
const MAX_REQUEST_LINE: usize = 8 * 1024;

/// The longest method recognised (the registered ones have at most 17 letters).
const MAX_METHOD: usize = 32;

/// The longest ClientHello looked into; a post-quantum key share alone is 1.2 KB, and 16 KiB is one TLS record.
const MAX_CLIENT_HELLO: usize = 16 * 1024 + 5;

/// Bytes received in one go.
const READ_CHUNK: usize = 4096;

/// What a client speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// TLS, with what its ClientHello offers.
    Tls(ClientHello),
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Something else.
    Other,
}

/// The parts of a ClientHello that select a filter chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name indication, if any.
    pub server_name: Option<String>,
    /// The offered application protocols, in the client's order.
    pub alpn: Vec<Vec<u8>>,
}

/// How looking at the first bytes ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// The client has said enough.
    Protocol(Protocol),
    /// The client has said nothing within the budget: perhaps the server speaks first.
    Silent,
    /// The client closed without a byte.
    Closed,
}

/// Reads into `received` until the bytes there tell the protocol, or the budget is over.
///
/// # Errors
/// When the transport fails.
pub async fn sniff(io: &mut BoxIo, received: &mut Vec<u8>, budget: Option<&Deadline>) -> io::Result<Sniffed> {
    loop {
        if !received.is_empty()
            && let Some(protocol) = classify(received)
        {
            return Ok(Sniffed::Protocol(protocol));
        }
        match race(budget, read_some(io, received)).await {
            Ok(Ok(0)) if received.is_empty() => return Ok(Sniffed::Closed),
            // What came is all there will be.
            Ok(Ok(0)) => return Ok(Sniffed::Protocol(Protocol::Other)),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) if received.is_empty() => return Ok(Sniffed::Silent),
            // A client that sent part of what might be HTTP and now waits speaks something else.
            Err(_) => return Ok(Sniffed::Protocol(Protocol::Other)),
        }
    }
}

/// Whether a client that speaks HTTP speaks HTTP/2, by its first byte that is not of the preface. `None` when `limit` passed.
///
/// # Errors
/// When the transport fails.
pub async fn speaks_http2(
    io: &mut BoxIo,
    received: &mut Vec<u8>,
    limit: Option<&Deadline>,
) -> io::Result<Option<bool>> {
    loop {
        let common = received.len().min(HTTP2_PREFACE.len());
        if received[..common] != HTTP2_PREFACE[..common] {
            return Ok(Some(false));
        }
        if common == HTTP2_PREFACE.len() {
            return Ok(Some(true));
        }
        match race(limit, read_some(io, received)).await {
            // The codec has a clear refusal for half a preface.
            Ok(Ok(0)) => return Ok(Some(false)),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(None),
        }
    }
}

/// Receives some bytes onto the end of `buffer`; 0 at the end of the stream.
pub async fn read_some(io: &mut BoxIo, buffer: &mut Vec<u8>) -> io::Result<usize> {
    // Into the heap: a chunk on the stack would stay in the task of every connection.
    buffer.reserve(READ_CHUNK);
    io.read_buf(buffer).await
}

/// What `bytes`, the first of a connection, are; `None` while more are needed to tell.
pub fn classify(bytes: &[u8]) -> Option<Protocol> {
    if bytes.first() == Some(&0x16) {
        return classify_tls(bytes);
    }
    let common = bytes.len().min(HTTP2_PREFACE.len());
    if bytes[..common] == HTTP2_PREFACE[..common] {
        return (common == HTTP2_PREFACE.len()).then_some(Protocol::Http2);
    }
    classify_http1(bytes)
}

fn classify_tls(bytes: &[u8]) -> Option<Protocol> {
    if bytes.get(1).is_some_and(|major| *major != 3) || bytes.len() > MAX_CLIENT_HELLO {
        return Some(Protocol::Other);
    }
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return Some(Protocol::Other),
        }
    }
    match acceptor.accept() {
        Ok(None) => None,
        Ok(Some(accepted)) => {
            let hello = accepted.client_hello();
            Some(Protocol::Tls(ClientHello {
                server_name: hello.server_name().map(str::to_owned),
                alpn: hello.alpn().map(|names| names.map(<[u8]>::to_vec).collect()).unwrap_or_default(),
            }))
        }
        Err(_) => Some(Protocol::Other),
    }
}

/// A request line: method, one space, anything, `HTTP/1.`, digit, line end (RFC 9112 §3).
fn classify_http1(bytes: &[u8]) -> Option<Protocol> {
    let method = bytes.iter().take_while(|byte| is_token(**byte)).count();
    match bytes.get(method) {
        None if method > 0 && method <= MAX_METHOD => return None,
        Some(b' ') if method > 0 && method <= MAX_METHOD => {}
        // An empty line before the request line is tolerated (RFC 9112 §2.2).
        Some(b'\r') if bytes == b"\r" => return None,
        Some(b'\r') if bytes.starts_with(b"\r\n") => return classify_http1_after_blank(bytes),
        _ => return Some(Protocol::Other),
    }
    match memchr::memchr(b'\n', bytes) {
        Some(end) => {
            let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
            let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let is_http = version.starts_with(b"HTTP/1.") && version.len() == 8;
            Some(if is_http { Protocol::Http1 } else { Protocol::Other })
        }
        None if bytes.len() < MAX_REQUEST_LINE => None,
        // A long target: the codec has its own limit and a clear answer for it.
        None => Some(Protocol::Http1),
    }
}

fn classify_http1_after_blank(bytes: &[u8]) -> Option<Protocol> {
    match &bytes[2..] {
        [] | [b'\r'] => None,
        rest if rest.starts_with(b"\r\n") => Some(Protocol::Other),
        rest => classify_http1(rest),
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tells_protocols_by_their_first_bytes() {
        let table: &[(&[u8], Option<Protocol>)] = &[
            (b"", None),
            (b"G", None),
            (b"GET / HTTP/1.1", None),
            (b"GET / HTTP/1.1\r\n", Some(Protocol::Http1)),
            (b"\r\nGET / HTTP/1.1\r\n", Some(Protocol::Http1)),
            (b"GET key\r\n", Some(Protocol::Other)),
            (b"PING\r\n", Some(Protocol::Other)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Protocol::Other)),
            (b"PRI * HTTP/2.0\r\n", None),
            (HTTP2_PREFACE, Some(Protocol::Http2)),
            (b"PRI * HTTP/2.0\r\nHost: x\r\n", Some(Protocol::Other)),
            (b"\x16\x03\x01", None),
            (b"\x16\x07", Some(Protocol::Other)),
            (b"\x00\x00\x00\x08", Some(Protocol::Other)),
        ];
        for (bytes, expected) in table {
            assert_eq!(classify(bytes), *expected, "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_not_a_protocol() {
        let (_client, server) = tokio::io::duplex(64);
        let sweep = crate::stream::sweep::Sweep::default();
        let set = tokio::task::LocalSet::new();
        set.spawn_local(sweep.clone().run());
        let sniffed = set
            .run_until(async {
                let budget = sweep.after(std::time::Duration::from_millis(200));
                sniff(&mut (Box::new(server) as BoxIo), &mut Vec::new(), Some(&budget)).await
            })
            .await;
        assert_eq!(sniffed.unwrap(), Sniffed::Silent);
    }

    proptest! {
        #[test]
        fn any_bytes_are_classified_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            classify(&bytes);
        }

        #[test]
        fn more_bytes_never_change_a_verdict(bytes in "[A-Z /.0-9\r\n]{0,60}") {
            let bytes = bytes.as_bytes();
            let mut verdict = None;
            for end in 0..=bytes.len() {
                let now = classify(&bytes[..end]);
                if verdict.is_some() {
                    prop_assert_eq!(&now, &verdict);
                }
                verdict = now;
            }
        }
    }
}

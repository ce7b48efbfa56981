//! Answers of the proxy's own.

use super::reply::Reply;
use super::{Direction, Downstream};
use crate::http::{Framing, RequestHead, ResponseHead};
use crate::stream::sink::{Sink, WriteError};
use std::future::poll_fn;

/// Why the proxy itself answered, or why an attempt failed: Envoy's response flags and a few of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flag {
    /// The upstream could not be connected to.
    ConnectFailure,
    /// The upstream closed or reset before the response was complete.
    UpstreamReset,
    /// No endpoint could be used.
    NoHealthyEndpoint,
    /// A circuit breaker is open.
    Overflow,
    /// The route's timeout passed.
    Timeout,
    /// No route matches.
    NoRoute,
    /// The route's cluster is not known.
    NoCluster,
    /// No configuration for the destination arrived in time.
    NoConfiguration,
    /// Access was denied.
    Denied,
    /// An injected fault.
    Fault,
    /// An injected delay.
    Delay,
    /// The last retry failed too.
    RetriesExhausted,
    /// The client went away.
    DownstreamClosed,
    /// The request is no valid HTTP, or cannot be expressed in the upstream's version.
    Malformed,
    /// The stream was idle for too long.
    StreamIdle,
    /// The stream lived longer than its route allows.
    StreamDuration,
    /// The stream to the upstream lived longer than its cluster allows.
    UpstreamDuration,
}

impl Flag {
    /// The short name in metrics, logs and `x-weft-flag`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectFailure => "UF",
            Self::UpstreamReset => "UC",
            Self::NoHealthyEndpoint => "UH",
            Self::Overflow => "UO",
            Self::Timeout => "UT",
            Self::NoRoute => "NR",
            Self::NoCluster => "NCL",
            Self::NoConfiguration => "NC",
            Self::Denied => "UAEX",
            Self::Fault => "FI",
            Self::Delay => "DI",
            Self::RetriesExhausted => "URX",
            Self::DownstreamClosed => "DC",
            Self::Malformed => "DPE",
            Self::StreamIdle => "SI",
            Self::StreamDuration => "DT",
            Self::UpstreamDuration => "UMSDR",
        }
    }
}

/// An answer made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalReply {
    /// The HTTP status.
    pub status: u16,
    /// Why, for metrics and logs; `None` for answers the configuration asks for.
    pub flag: Option<Flag>,
    /// The body: one line for people, or what a direct response says.
    pub body: String,
    /// Further fields.
    pub fields: Vec<(&'static str, Vec<u8>)>,
    /// The request may be sent elsewhere, whatever the caller's policy: it did not reach the application; or the application was ending,
    /// and the method allows to repeat it.
    pub undelivered: bool,
}

impl LocalReply {
    /// An answer that says what went wrong.
    pub fn new(status: u16, flag: Flag, body: impl Into<String>) -> Self {
        Self { status, flag: Some(flag), body: body.into(), fields: Vec::new(), undelivered: false }
    }

    /// See [`LocalReply::undelivered`].
    pub fn undelivered(mut self) -> Self {
        self.undelivered = true;
        self
    }

    /// Adds a field.
    pub fn with_field(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

/// Sends a local answer. gRPC callers get it as a trailers-only response, which their libraries understand.
///
/// # Errors
/// When the client is gone.
pub async fn send(
    reply: &mut Reply<'_>,
    request: &RequestHead,
    downstream: &Downstream,
    answer: &LocalReply,
) -> Result<(), WriteError> {
    let mut head = ResponseHead::new();
    let is_grpc = request.fields.get("content-type").is_some_and(|value| value.starts_with(b"application/grpc"));
    let framing = if is_grpc {
        head.set_status(200);
        head.fields.append(b"content-type", b"application/grpc");
        head.fields.append(b"grpc-status", grpc_status(answer).to_string().as_bytes());
        let message = percent_encode(answer.body.trim_end());
        if !message.is_empty() {
            head.fields.append(b"grpc-message", message.as_bytes());
        }
        match reply {
            Reply::Http1(_) => Framing::Length(0),
            Reply::Http2(_) => Framing::None,
        }
    } else {
        head.set_status(answer.status);
        let carries_body = !matches!(answer.status, 100..=199 | 204 | 304);
        if carries_body {
            head.fields.append(b"content-length", answer.body.len().to_string().as_bytes());
            if !answer.body.is_empty() {
                head.fields.append(b"content-type", b"text/plain");
            }
        }
        if carries_body { Framing::Length(answer.body.len() as u64) } else { Framing::None }
    };
    for (name, value) in &answer.fields {
        head.fields.insert(name.as_bytes(), value);
    }
    match (downstream.direction, answer.flag) {
        // Other workloads are told no more than the status.
        (Direction::Inbound, _) if answer.undelivered => {
            let says = if answer.flag == Some(Flag::Overflow) { OVERLOADED } else { UNREACHED };
            head.fields.append(UNDELIVERED.as_bytes(), says);
        }
        (Direction::Outbound, Some(flag)) => {
            head.fields.append(b"x-weft-flag", flag.as_str().as_bytes());
        }
        _ => {}
    }
    let mut sink = reply.start(&mut head, framing, false)?;
    if !is_grpc && !request.is_head() {
        write_whole(&mut sink, answer.body.as_bytes())?;
    }
    poll_fn(|cx| sink.poll_flush(cx)).await
}

/// Marks the response to a request that may be sent elsewhere; see [`LocalReply::undelivered`]. Believed only from an authenticated peer.
pub const UNDELIVERED: &str = "x-weft-undelivered";

/// The mark of a request that found no application, or one that was ending.
pub const UNREACHED: &[u8] = b"1";

/// The mark of a request that found more of its kind than a breaker allows.
pub const OVERLOADED: &[u8] = b"overflow";

fn write_whole(sink: &mut Sink<'_>, body: &[u8]) -> Result<(), WriteError> {
    match sink {
        Sink::Closed => Ok(()),
        Sink::Http1 { writer, encoder } => {
            encoder.data(body, writer.buffer())?;
            encoder.end(writer.buffer())?;
            Ok(())
        }
        Sink::Http2(stream) => {
            // One line fits the smallest window a peer may offer; h2 buffers what does not.
            stream.send_data(bytes::Bytes::copy_from_slice(body), true)?;
            *sink = Sink::Closed;
            Ok(())
        }
    }
}

/// The mapping of the gRPC specification ("HTTP to gRPC Status Code Mapping"), but for what we know better: a time limit is
/// DEADLINE_EXCEEDED, not the UNAVAILABLE that callers take for an invitation to try again.
fn grpc_status(answer: &LocalReply) -> u16 {
    match answer.status {
        _ if matches!(
            answer.flag,
            Some(Flag::Timeout | Flag::StreamIdle | Flag::StreamDuration | Flag::UpstreamDuration)
        ) =>
        {
            4
        }
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// Percent-encoding of `grpc-message` (gRPC over HTTP/2, "Responses").
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

//! Between our heads and those of the h2 crate, both ways.
//!
//! Inside the proxy a message looks like HTTP/1.1 whatever carried it: an extended CONNECT (RFC 8441) is a GET with
//! Upgrade, its success a 101, cookie crumbs (RFC 9113 §8.2.3) are one Cookie field, and
//! `:authority` is [`RequestHead::authority`](super::RequestHead::authority) without a Host field. So whatever stands between the two
//! sides knows one form only, and any side can be either protocol.
//!
//! | | HTTP/2 → ours | ours → HTTP/2 |
//! |---|---|---|
//! | request | [`request_from_h2`] | [`request_to_h2`] |
//! | response | [`response_from_h2`] | [`response_to_h2`] |
//! | trailers | [`trailers_from_h2`] | [`trailers_to_h2`] |
//! | body | [`framing_from_h2`] | DATA frames need no announcement |
//!
//! WebSocket's key and its proof exist on HTTP/1.1 only: [`websocket`] makes up for them.
//!
//! What cannot be carried: the `http` crate's `Uri`, which h2 asks for, refuses `<`, `>`, a backtick and other bytes that HTTP/1.1
//! clients do send, and would cut the target at `#`. Such requests are refused rather than changed.

mod request;
mod response;
pub mod websocket;

pub use request::{request_from_h2, request_to_h2};
pub use response::{response_from_h2, response_to_h2};

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use thiserror::Error;

use super::{Fields, Framing, syntax};

/// Why a head cannot be carried over to the other protocol.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConvertError {
    /// See the module's text.
    #[error("the path {0:?} cannot be sent over HTTP/2: `<`, `>`, `#`, backtick and the like must be percent-encoded")]
    Path(String),
    /// `:authority` or Host.
    #[error("the authority {0:?} is not host[:port]")]
    Authority(String),
    /// RFC 9113 §8.3.1.
    #[error("the request has neither :authority nor Host")]
    MissingAuthority,
    /// RFC 9113 §8.3.1: to be treated as malformed.
    #[error("Host {host:?} differs from :authority {authority:?}")]
    AuthorityMismatch {
        /// The Host field.
        host: String,
        /// `:authority`.
        authority: String,
    },
    /// The scheme is not one.
    #[error("the scheme {0:?} is malformed")]
    Scheme(String),
    /// RFC 8441 §4: `:protocol`.
    #[error("the Upgrade field {0:?} does not name one protocol")]
    Protocol(String),
    /// Content-Length repeated, malformed, or beside Transfer-Encoding.
    #[error("the message's length is announced in a malformed or contradictory way")]
    Length,
    /// A status that is not three digits.
    #[error("the status {0} is not one")]
    Status(u16),
    /// A field that the `http` crate does not take.
    #[error("the field {0:?} cannot be sent over HTTP/2")]
    Field(String),
}

impl ConvertError {
    /// The status that answers a request with this error; in a response it is a 502.
    pub fn status(&self) -> u16 {
        400
    }
}

/// How an HTTP/2 message's body is delimited once it is sent over HTTP/1.1: `end_stream` is whether the head
/// ended the stream.
///
/// # Errors
/// [`ConvertError::Length`].
pub fn framing_from_h2(fields: &Fields, end_stream: bool) -> Result<Framing, ConvertError> {
    let mut lengths = fields.get_all("content-length");
    let length = lengths.next().map(|value| syntax::parse_length(value).ok_or(ConvertError::Length)).transpose()?;
    if lengths.next().is_some() {
        return Err(ConvertError::Length);
    }
    match (length, end_stream) {
        (Some(length), false) => Ok(Framing::Length(length)),
        // RFC 9113 §8.1.1; a HEAD's or a 304's length stays a field, and says nothing of the body.
        (Some(0), true) => Ok(Framing::Length(0)),
        (Some(_) | None, true) => Ok(Framing::None),
        (None, false) => Ok(Framing::Chunked),
    }
}

/// Adds received trailers to `fields`, without those that may not be there (RFC 9110 §6.5.1).
pub fn trailers_from_h2(trailers: &HeaderMap, fields: &mut Fields) {
    for (name, value) in trailers {
        if !is_framing_or_routing(name.as_str().as_bytes()) {
            fields.append(name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

/// Trailers to send.
///
/// # Errors
/// [`ConvertError::Field`].
pub fn trailers_to_h2(fields: &Fields) -> Result<HeaderMap, ConvertError> {
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields.iter() {
        if !is_framing_or_routing(name) && !is_connection_specific(name) {
            append(&mut trailers, name, value)?;
        }
    }
    Ok(trailers)
}

fn is_framing_or_routing(name: &[u8]) -> bool {
    [&b"content-length"[..], b"transfer-encoding", b"host"].iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// RFC 9113 §8.2.2.
fn is_connection_specific(name: &[u8]) -> bool {
    let names: &[&[u8]] = match name.len() {
        7 => &[b"upgrade"],
        10 => &[b"connection", b"keep-alive"],
        14 => &[b"http2-settings"],
        16 => &[b"proxy-connection"],
        17 => &[b"transfer-encoding"],
        _ => return false,
    };
    names.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// Copies the fields that HTTP/2 may carry: none of the connection's own or of those that Connection names,
/// `TE` only as `trailers`, cookies as crumbs, and none for which `skip` says so.
fn copy_to_h2(fields: &Fields, headers: &mut HeaderMap, skip: impl Fn(&[u8]) -> bool) -> Result<(), ConvertError> {
    headers.reserve(fields.len());
    let mut named: SmallVec<[u8; 64]> = SmallVec::new();
    for value in fields.get_all("connection") {
        named.extend_from_slice(value);
        named.push(b',');
    }
    let is_named = |name: &[u8]| {
        syntax::list_members(&named)
            .any(|option| option.eq_ignore_ascii_case(name) && !option.eq_ignore_ascii_case(b"content-length"))
    };
    for (name, value) in fields.iter() {
        if skip(name) || is_connection_specific(name) {
            continue;
        }
        if name.eq_ignore_ascii_case(b"te") {
            if syntax::list_members(value).any(|m| m.eq_ignore_ascii_case(b"trailers")) {
                headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
            }
        } else if is_named(name) {
            continue;
        } else if name.eq_ignore_ascii_case(b"cookie") {
            for crumb in crumbs(value) {
                append(headers, name, crumb)?;
            }
        } else {
            append(headers, name, value)?;
        }
    }
    Ok(())
}

/// The parts of a Cookie field between `; `, which compress better one by one (RFC 9113 §8.2.3).
fn crumbs(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let whole = rest?;
        match memchr::memmem::find(whole, b"; ") {
            Some(at) => {
                rest = Some(&whole[at + 2..]);
                Some(&whole[..at])
            }
            None => rest.take(),
        }
    })
}

fn append(headers: &mut HeaderMap, name: &[u8], value: &[u8]) -> Result<(), ConvertError> {
    let refused = || ConvertError::Field(printable(name));
    let header = HeaderName::from_bytes(name).map_err(|_| refused())?;
    let value = HeaderValue::from_bytes(value).map_err(|_| refused())?;
    headers.try_append(header, value).map_err(|_| refused())?;
    Ok(())
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;

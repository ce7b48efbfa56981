//! The head that goes to the endpoint, made of the one that came.

use super::life::Context;
use super::local::{Flag, LocalReply, UNDELIVERED};
use crate::http::{RequestHead, convert};
use crate::http1::strip_hop_by_hop;
use std::borrow::Cow;
use std::time::Duration;
use weft_rules::{ClusterChoice, Forward};

/// Turns the received head into the one to send. Returns whether it asks to change the protocol.
pub(super) fn prepare(
    cx: &Context<'_>,
    forward: &Forward,
    choice: &ClusterChoice,
    request: &mut RequestHead,
) -> Result<bool, LocalReply> {
    // The route's word, or else the listener's.
    let allows = |protocol: &[u8]| {
        let rule = forward.upgrades.iter().find(|rule| rule.name.as_bytes().eq_ignore_ascii_case(protocol));
        rule.map_or_else(|| cx.chain.upgrades.allows(protocol), |rule| rule.enabled)
    };
    let upgrade = match request.fields.get("upgrade") {
        Some(protocol) if request.fields.list_contains("connection", "upgrade") => {
            if !allows(protocol) {
                // The server may answer without switching; it just is not asked (RFC 9110 §7.8).
                request.fields.remove("upgrade");
                false
            } else {
                true
            }
        }
        _ => false,
    };
    if request.is_connect() && !allows(b"connect") {
        let text = "CONNECT is not enabled for this destination\n";
        return Err(LocalReply::new(403, Flag::NoRoute, text));
    }
    if upgrade {
        // Over HTTP/2 a WebSocket has no key; a server on HTTP/1.1 insists on one.
        let key = [cx.worker.random64().to_ne_bytes(), cx.worker.random64().to_ne_bytes()].concat();
        convert::websocket::ensure_key(request, key.try_into().unwrap_or_default());
    }
    strip_hop_by_hop(&mut request.fields, upgrade);
    // Only this proxy's own peers may claim it, and only in responses.
    request.fields.remove(UNDELIVERED);
    if let Some(path) = forward.rewritten_path(request) {
        request.set_path_and_query(&path);
    }
    if let Some(authority) = forward.rewritten_authority(choice, request, None).map(Cow::into_owned) {
        if forward.append_x_forwarded_host {
            let original = request.authority().to_vec();
            request.fields.append(b"x-forwarded-host", &original);
        }
        request.set_authority(&authority);
    }
    choice.request_headers.apply(&mut request.fields);
    Ok(upgrade || request.is_connect())
}

/// The longest life of a stream: what a gRPC client asks for, as far as the route believes it, in the place of the route's own limit.
pub(super) fn longest(forward: &Forward, request: &RequestHead) -> Option<Duration> {
    let asked = || Some((forward.grpc_timeout?, grpc_timeout(request.fields.get("grpc-timeout")?)?));
    match asked() {
        Some((limits, asked)) => Some(limits.max.map_or(asked, |max| asked.min(max)).saturating_sub(limits.offset)),
        None => forward.max_stream_duration.flatten(),
    }
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Requests"). What is malformed asks for nothing.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

//! Input text, expected text. `¶` stands for CR LF; every input is decoded at once and byte by byte.

mod allocations;
mod body;
mod encode;
mod properties;
mod request;
mod response;

use crate::http::{Framing, RequestHead};

use super::{HeadError, Limits, Parsed, RequestDecoder};

/// Limits of most tests: HTTP/1.0 taken.
const LIMITS: Limits = Limits { max_head_bytes: 60 * 1024, max_fields: 100, accept_http10: true };

fn bytes(text: &str) -> Vec<u8> {
    text.replace('¶', "\r\n").into_bytes()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "¶")
}

fn framing_text(framing: Framing) -> String {
    match framing {
        Framing::None => "none".to_owned(),
        Framing::Length(length) => format!("length={length}"),
        Framing::Chunked => "chunked".to_owned(),
        Framing::UntilClose => "until-close".to_owned(),
    }
}

/// Decodes a request head given at once.
fn decode_whole(input: &[u8], limits: Limits) -> Result<Option<(RequestHead, Parsed)>, HeadError> {
    let mut head = RequestHead::new();
    let parsed = RequestDecoder::new(limits).decode(input, &mut head)?;
    Ok(parsed.map(|parsed| (head, parsed)))
}

/// Decodes a request head of which each call sees one byte more.
fn decode_bytewise(input: &[u8], limits: Limits) -> Result<Option<(RequestHead, Parsed)>, HeadError> {
    let mut head = RequestHead::new();
    let mut decoder = RequestDecoder::new(limits);
    for end in 0..=input.len() {
        if let Some(parsed) = decoder.decode(&input[..end], &mut head)? {
            return Ok(Some((head, parsed)));
        }
    }
    Ok(None)
}

//! HTTP/1.1 and 1.0 as a state machine: bytes in, heads and body frames out.
//!
//! Nothing here reads, writes or asks for the time; the caller owns the buffers. A connection holds one
//! [`RequestDecoder`] (or [`ResponseDecoder`]) for its life, and for each message a [`BodyDecoder`]
//! made from the head's framing; toward the other side [`encode_request`] or [`encode_response`] and
//! a [`BodyEncoder`].
//!
//! Invariants:
//! - What is decoded does not depend on how the bytes were cut into reads.
//! - Every form that two readers could understand differently is refused (RFC 9112 §11), never repaired.
//! - In steady state nothing allocates, except for trailers.
//!
//! ```
//! use weft_proxy::http::{Framing, RequestHead};
//! use weft_proxy::http1::{Limits, RequestDecoder, encode_request};
//!
//! let mut decoder = RequestDecoder::new(Limits::default());
//! let mut head = RequestHead::new();
//! let input = b"PUT /a HTTP/1.1\r\nhost: b\r\nContent-Length: 2\r\n\r\nhi";
//! let parsed = decoder.decode(input, &mut head).unwrap().expect("the head is complete");
//! assert_eq!(parsed.framing, Framing::Length(2));
//!
//! let mut out = Vec::new();
//! encode_request(&head, parsed.framing, &mut out);
//! assert_eq!(out, input[..parsed.consumed]);
//! ```

mod body;
mod decode;
mod encode;
mod error;
mod hop_by_hop;
mod section;
#[cfg(test)]
mod tests;

pub use body::{BodyDecoder, BodyStep};
pub use decode::{Limits, Parsed, ParsedResponse, RequestDecoder, ResponseDecoder, ResponseTo};
pub use encode::{BodyEncoder, encode_request, encode_response};
pub use error::{BodyError, EncodeError, HeadError};
pub use hop_by_hop::strip_hop_by_hop;

//! The codec's own source files, without the rest of the proxy: the fuzzers then build in seconds instead of minutes.
//!
//! `http` here holds what the codec needs of it; conversion to the h2 crate and the rules' view stay outside.

/// The head types.
#[path = "."]
pub mod http {
    #[path = "../../src/http/fields.rs"]
    mod fields;
    #[path = "../../src/http/head.rs"]
    mod head;
    #[allow(dead_code)]
    #[path = "../../src/http/syntax.rs"]
    pub(crate) mod syntax;

    pub use fields::Fields;
    pub use head::{Framing, RequestHead, ResponseHead, Version};
}

#[path = "../../src/http1/mod.rs"]
pub mod http1;

use http::Framing;
use http1::{BodyDecoder, BodyError, BodyStep, Limits};

/// Small, so that the fuzzer meets the limits too.
pub const LIMITS: Limits = Limits { max_head_bytes: 512, max_fields: 16, accept_http10: true };

/// For what has been forwarded: a Host field and spaces after colons may have been added.
pub const FORWARDED_LIMITS: Limits = Limits { max_head_bytes: 4096, max_fields: 64, accept_http10: false };

/// A body as a receiver has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Its data.
    pub data: Vec<u8>,
    /// Its trailers.
    pub trailers: http::Fields,
    /// Bytes of the input that belonged to it.
    pub consumed: usize,
}

/// Decodes a body that comes `step` bytes a read and ends with the connection at the latest.
///
/// # Errors
/// As the decoder's.
pub fn read_body(framing: Framing, input: &[u8], step: usize, limits: Limits) -> Result<Body, BodyError> {
    let mut decoder = BodyDecoder::new(framing, limits);
    let mut body = Body::default();
    let mut end = 0;
    loop {
        match decoder.decode(&input[body.consumed..end])? {
            BodyStep::Data { skip, len } => {
                assert!(len > 0, "a step gets somewhere");
                let start = body.consumed + skip;
                body.data.extend_from_slice(&input[start..start + len]);
                body.consumed = start + len;
            }
            BodyStep::Skip { len } => {
                assert!(len > 0, "a step gets somewhere");
                body.consumed += len;
            }
            BodyStep::NeedMore if end < input.len() => end = (end + step).min(input.len()),
            BodyStep::NeedMore => {
                decoder.finish_eof()?;
                return Ok(body);
            }
            BodyStep::End => {
                body.trailers.clone_from(decoder.trailers());
                return Ok(body);
            }
        }
    }
}

/// What is written must leave no second way to read it: at most one field says where the body ends.
pub fn assert_unambiguous(fields: &http::Fields) {
    let lengths = fields.get_all("content-length").count();
    let codings = fields.get_all("transfer-encoding").count();
    assert!(lengths + codings <= 1, "{fields:?}");
}

/// Cuts the first byte off `data` as the size of reads.
pub fn step_and_input(data: &[u8]) -> (usize, &[u8]) {
    match data {
        [step, input @ ..] => (usize::from(*step) + 1, input),
        [] => (1, data),
    }
}

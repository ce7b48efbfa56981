//! A body in each framing: what it is does not depend on how it was cut into reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy_fuzz::http::Framing;
use weft_proxy_fuzz::{LIMITS, read_body, step_and_input};

fuzz_target!(|data: &[u8]| {
    let (step, input) = step_and_input(data);
    for framing in [Framing::Chunked, Framing::Length(step as u64 * 3), Framing::UntilClose, Framing::None] {
        assert_eq!(read_body(framing, input, step, LIMITS), read_body(framing, input, input.len().max(1), LIMITS));
    }
});

//! A response: what it is does not depend on how it was cut into reads, and forwarding it changes neither
//! where it ends nor its contents.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy_fuzz::http::ResponseHead;
use weft_proxy_fuzz::http1::{
    BodyEncoder, HeadError, Limits, ParsedResponse, ResponseDecoder, ResponseTo, encode_response, strip_hop_by_hop,
};
use weft_proxy_fuzz::{FORWARDED_LIMITS, LIMITS, assert_unambiguous, read_body, step_and_input};

fuzz_target!(|data: &[u8]| {
    let (step, input) = step_and_input(data);
    let to = match step % 4 {
        0 => ResponseTo { head: true, ..ResponseTo::default() },
        1 => ResponseTo { connect: true, ..ResponseTo::default() },
        2 => ResponseTo { upgrade: true, ..ResponseTo::default() },
        _ => ResponseTo::default(),
    };
    let read = read_head(input, to, step, LIMITS);
    assert_eq!(read, read_head(input, to, input.len().max(1), LIMITS));
    let Ok(Some((mut head, parsed))) = read else { return };
    let Ok(body) = read_body(parsed.framing, &input[parsed.consumed..], step, LIMITS) else { return };

    strip_hop_by_hop(&mut head.fields, parsed.tunnel);
    let mut forwarded = Vec::new();
    encode_response(&head, parsed.framing, &mut forwarded);
    let head_len = forwarded.len();
    let mut encoder = BodyEncoder::new(parsed.framing);
    encoder.data(&body.data, &mut forwarded).expect("as long as announced");
    encoder.trailers(&body.trailers, &mut forwarded).expect("as long as announced");

    let again = read_head(&forwarded, to, step, FORWARDED_LIMITS).expect("a written head is well-formed");
    let (head_again, parsed_again) = again.expect("a written head is complete");
    assert_eq!(parsed_again.consumed, head_len);
    assert_eq!(parsed_again.framing, parsed.framing);
    assert_unambiguous(&head_again.fields);
    assert_eq!((head.status(), head.reason()), (head_again.status(), head_again.reason()));
    let body_again = read_body(parsed.framing, &forwarded[head_len..], step, FORWARDED_LIMITS)
        .expect("a written body is well-formed");
    assert_eq!((body.data, body.trailers), (body_again.data, body_again.trailers));
    assert_eq!(body_again.consumed, forwarded.len() - head_len);
});

fn read_head(
    input: &[u8],
    to: ResponseTo,
    step: usize,
    limits: Limits,
) -> Result<Option<(ResponseHead, ParsedResponse)>, HeadError> {
    let mut decoder = ResponseDecoder::new(limits);
    let mut head = ResponseHead::new();
    let mut end = 0;
    loop {
        if let Some(parsed) = decoder.decode(&input[..end], to, &mut head)? {
            return Ok(Some((head, parsed)));
        }
        if end == input.len() {
            return Ok(None);
        }
        end = (end + step).min(input.len());
    }
}

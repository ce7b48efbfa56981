//! Pipelined requests: what they are does not depend on how they were cut into reads, and forwarding them
//! changes neither their number nor their contents. That is what a smuggled request would break.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy_fuzz::http::{Framing, RequestHead};
use weft_proxy_fuzz::http1::{
    BodyEncoder, HeadError, Limits, Parsed, RequestDecoder, encode_request, strip_hop_by_hop,
};
use weft_proxy_fuzz::{Body, FORWARDED_LIMITS, LIMITS, assert_unambiguous, read_body, step_and_input};

fuzz_target!(|data: &[u8]| {
    let (step, input) = step_and_input(data);
    let requests = read_all(input, step, LIMITS);
    assert_eq!(requests, read_all(input, input.len().max(1), LIMITS));

    let mut forwarded = Vec::new();
    for (head, framing, body) in &requests {
        encode_request(head, *framing, &mut forwarded);
        let mut encoder = BodyEncoder::new(*framing);
        encoder.data(&body.data, &mut forwarded).expect("as long as announced");
        encoder.trailers(&body.trailers, &mut forwarded).expect("as long as announced");
    }
    let again = read_all(&forwarded, step, FORWARDED_LIMITS);
    assert_eq!(requests.len(), again.len(), "{}", forwarded.escape_ascii());
    for ((head, framing, body), (head_again, framing_again, body_again)) in requests.iter().zip(&again) {
        assert_eq!((head.method(), head.target()), (head_again.method(), head_again.target()));
        assert_eq!(head.authority(), head_again.authority());
        assert_eq!((&body.data, &body.trailers), (&body_again.data, &body_again.trailers));
        assert_eq!(framing, framing_again);
        assert_unambiguous(&head_again.fields);
    }
});

/// The complete requests of a connection until it fails, ends, or ceases to be one for HTTP.
fn read_all(input: &[u8], step: usize, limits: Limits) -> Vec<(RequestHead, Framing, Body)> {
    let mut requests = Vec::new();
    let mut at = 0;
    while let Ok(Some((mut head, parsed))) = read_head(&input[at..], step, limits) {
        at += parsed.consumed;
        let Ok(body) = read_body(parsed.framing, &input[at..], step, limits) else { break };
        at += body.consumed;
        strip_hop_by_hop(&mut head.fields, parsed.upgrade);
        requests.push((head, parsed.framing, body));
        if parsed.connect || parsed.upgrade {
            break;
        }
    }
    requests
}

fn read_head(input: &[u8], step: usize, limits: Limits) -> Result<Option<(RequestHead, Parsed)>, HeadError> {
    let mut decoder = RequestDecoder::new(limits);
    let mut head = RequestHead::new();
    let mut end = 0;
    loop {
        if let Some(parsed) = decoder.decode(&input[..end], &mut head)? {
            return Ok(Some((head, parsed)));
        }
        if end == input.len() {
            return Ok(None);
        }
        end = (end + step).min(input.len());
    }
}

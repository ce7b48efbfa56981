//! The hot path's promise: once its buffers have grown, a connection allocates nothing per request.

use super::super::{
    BodyDecoder, BodyEncoder, BodyStep, RequestDecoder, ResponseDecoder, ResponseTo, encode_request, encode_response,
    strip_hop_by_hop,
};
use super::{LIMITS, bytes, text};
use crate::allocations;
use crate::http::{Framing, RequestHead, ResponseHead};

#[test]
fn a_request_and_its_response_allocate_nothing_once_buffers_have_grown() {
    let request = bytes(
        "POST /cart?x=1 HTTP/1.1¶Host:cart¶User-Agent: x¶Connection: keep-alive, x-hop¶x-hop: 1¶Transfer-Encoding: chunked¶¶5¶hello¶0¶¶",
    );
    let response = bytes("HTTP/1.1 200 OK¶Server: x¶Connection: keep-alive¶Content-Length: 2¶¶ok");
    let mut requests = RequestDecoder::new(LIMITS);
    let mut responses = ResponseDecoder::new(LIMITS);
    let mut request_head = RequestHead::new();
    let mut replay = RequestHead::new();
    let mut response_head = ResponseHead::new();
    let mut out = Vec::new();
    let mut exchange = || {
        out.clear();
        let parsed = requests.decode(&request, &mut request_head).unwrap().unwrap();
        strip_hop_by_hop(&mut request_head.fields, false);
        request_head.fields.append(b"x-forwarded-for", b"198.18.0.1");
        request_head.set_authority(b"other");
        replay.clone_from(&request_head);
        encode_request(&request_head, parsed.framing, &mut out);
        relay(&request[parsed.consumed..], parsed.framing, &mut out);

        let to = ResponseTo::request(&request_head, false);
        let parsed = responses.decode(&response, to, &mut response_head).unwrap().unwrap();
        strip_hop_by_hop(&mut response_head.fields, false);
        encode_response(&response_head, parsed.framing, &mut out);
        relay(&response[parsed.consumed..], parsed.framing, &mut out);
    };
    exchange();
    let before = allocations::so_far();
    for _ in 0..100 {
        exchange();
    }
    let allocated = allocations::so_far() - before;
    assert_eq!(
        text(&out),
        "POST /cart?x=1 HTTP/1.1¶Host: other¶User-Agent: x¶Transfer-Encoding: chunked¶x-forwarded-for: 198.18.0.1¶¶5¶hello¶0¶¶HTTP/1.1 200 OK¶Server: x¶Content-Length: 2¶¶ok"
    );
    assert_eq!(allocated, 0);
}

fn relay(mut input: &[u8], framing: Framing, out: &mut Vec<u8>) {
    let mut decoder = BodyDecoder::new(framing, LIMITS);
    let mut encoder = BodyEncoder::new(framing);
    loop {
        match decoder.decode(input).expect("a well-formed body") {
            BodyStep::Data { skip, len } => {
                encoder.data(&input[skip..skip + len], out).expect("as long as announced");
                input = &input[skip + len..];
            }
            BodyStep::Skip { len } => input = &input[len..],
            BodyStep::NeedMore => panic!("the body is complete"),
            BodyStep::End => break,
        }
    }
    encoder.end(out).expect("as long as announced");
}

//! The hot path's promise: once its buffers have grown, a connection allocates nothing per request.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use weft_proxy::http::{Framing, RequestHead, ResponseHead};
use weft_proxy::http1::{
    BodyDecoder, BodyEncoder, BodyStep, Limits, RequestDecoder, ResponseDecoder, ResponseTo, encode_request,
    encode_response, strip_hop_by_hop,
};

const LIMITS: Limits = Limits { max_head_bytes: 60 * 1024, max_fields: 100, accept_http10: true };

/// `¶` stands for CR LF.
fn bytes(text: &str) -> Vec<u8> {
    text.replace('¶', "\r\n").into_bytes()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "¶")
}

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Counts this thread's allocations: tests run beside each other.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: passes everything on to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread being torn down allocates uncounted.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those of `System::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` by `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

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
    let before = ALLOCATIONS.get();
    for _ in 0..100 {
        exchange();
    }
    let allocated = ALLOCATIONS.get() - before;
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

//! Properties over generated input.

use proptest::prelude::*;

use super::super::{BodyEncoder, Limits, encode_request};
use super::*;
use crate::http::Fields;

/// Pieces that make up valid and invalid heads alike.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(b"\r\n".to_vec()),
        1 => Just(b"\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        2 => Just(b"GET / HTTP/1.1\r\n".to_vec()),
        2 => Just(b"Host: a\r\n".to_vec()),
        1 => Just(b"Content-Length: 3\r\n".to_vec()),
        1 => Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        1 => Just(b"3\r\nabc\r\n".to_vec()),
        1 => Just(b"0\r\n".to_vec()),
        1 => Just(b"1;x=y\r\n".to_vec()),
        2 => prop::collection::vec(any::<u8>(), 1..6),
    ]
}

fn soup() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(piece(), 0..12).prop_map(|pieces| pieces.concat())
}

fn field() -> impl Strategy<Value = (String, Vec<u8>)> {
    let value = prop::collection::vec(prop_oneof![0x20u8..0x7f, 0x80u8..=0xff, Just(b'\t')], 0..20);
    ("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", value).prop_filter("no special field", |(name, _)| {
        !["host", "content-length", "transfer-encoding", "expect", "upgrade", "connection"]
            .contains(&name.to_ascii_lowercase().as_str())
    })
}

proptest! {
    #[test]
    fn the_verdict_on_a_head_is_the_same_at_every_split(input in soup(), small in any::<bool>()) {
        let limits = Limits { max_head_bytes: if small { 40 } else { 4096 }, max_fields: 3, accept_http10: true };
        prop_assert_eq!(decode_whole(&input, limits), decode_bytewise(&input, limits));
    }

    #[test]
    fn the_verdict_on_a_body_is_the_same_at_every_split(input in soup(), step in 1usize..5, length in 0u64..9) {
        let limits = Limits { max_head_bytes: 24, max_fields: 2, accept_http10: true };
        for framing in [Framing::Chunked, Framing::Length(length), Framing::UntilClose] {
            let cut = |text: String| text.split(" then ").next().map(str::to_owned);
            let whole = super::body::verdict(framing, &input, limits, input.len().max(1));
            let parts = super::body::verdict(framing, &input, limits, step);
            prop_assert_eq!(cut(whole), cut(parts));
        }
    }

    #[test]
    fn a_head_survives_being_written_and_read(
        method in "[A-Z]{1,8}",
        target in "/[!-~]{0,30}",
        fields in prop::collection::vec(field(), 0..10),
    ) {
        prop_assume!(method != "CONNECT");
        let mut head = RequestHead::new();
        head.set_method(method.as_bytes());
        head.set_target(target.as_bytes());
        head.fields.append(b"Host", b"a");
        for (name, value) in &fields {
            head.fields.append(name.as_bytes(), value);
        }
        let mut out = Vec::new();
        encode_request(&head, Framing::Chunked, &mut out);
        let (read, parsed) = decode_whole(&out, LIMITS).unwrap().unwrap();
        prop_assert_eq!((parsed.consumed, parsed.framing), (out.len(), Framing::Chunked));
        head.fields.append(b"Transfer-Encoding", b"chunked");
        prop_assert_eq!(read, head);
    }

    /// A Fields value built from anything at all stays one head.
    #[test]
    fn no_field_can_split_a_message(fields in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), prop::collection::vec(any::<u8>(), 0..9)), 0..9)) {
        let mut head = RequestHead::new();
        head.set_method(b"GET");
        head.set_target(b"/");
        for (name, value) in &fields {
            if !name.eq_ignore_ascii_case(b"host") {
                head.fields.append(name, value);
            }
        }
        let mut out = Vec::new();
        encode_request(&head, Framing::None, &mut out);
        let (read, parsed) = decode_whole(&out, LIMITS).unwrap().unwrap();
        prop_assert_eq!(parsed.consumed, out.len());
        prop_assert_eq!(read.fields.len(), head.fields.len() + 1);
    }

    #[test]
    fn a_body_survives_being_written_and_read(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6), trailer in any::<bool>()) {
        let data = chunks.concat();
        let mut trailers = Fields::new();
        if trailer {
            trailers.append(b"x-sum", b"1");
        }
        for framing in [Framing::Chunked, Framing::Length(data.len() as u64)] {
            let mut out = Vec::new();
            let mut body = BodyEncoder::new(framing);
            for chunk in &chunks {
                body.data(chunk, &mut out).unwrap();
            }
            body.trailers(&trailers, &mut out).unwrap();
            let mut expected = format!("{:?}", text(&data));
            if trailer && framing == Framing::Chunked {
                expected.push_str(" [x-sum: 1]");
            }
            prop_assert_eq!(super::body::verdict(framing, &out, LIMITS, 7), expected);
        }
    }
}

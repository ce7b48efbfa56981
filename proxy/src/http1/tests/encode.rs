//! What is written.

use super::super::{
    BodyEncoder, EncodeError, ResponseDecoder, ResponseTo, encode_request, encode_response, strip_hop_by_hop,
};
use super::*;
use crate::http::{Fields, ResponseHead};

fn recode(input: &str, framing: Framing) -> String {
    let (head, _) = decode_whole(&bytes(input), LIMITS).unwrap().unwrap();
    let mut out = Vec::new();
    encode_request(&head, framing, &mut out);
    text(&out)
}

#[test]
fn an_untouched_request_is_written_as_it_came() {
    for (input, framing) in [
        ("GET /%2e?x HTTP/1.1¶hOsT: a¶X-b: \u{e9}¶x-B: 2¶X-b: 3¶¶", Framing::None),
        ("POST / HTTP/1.1¶Host: a¶CONTENT-length: 5¶z: ¶¶", Framing::Length(5)),
        ("POST / HTTP/1.1¶Host: a¶transfer-encoding: Chunked¶¶", Framing::Chunked),
        ("OPTIONS * HTTP/1.1¶Host: a¶¶", Framing::None),
        ("GET http://a/b HTTP/1.1¶Host: a¶¶", Framing::None),
        ("CONNECT a:1 HTTP/1.1¶Host: a¶¶", Framing::None),
    ] {
        assert_eq!(recode(input, framing), input);
    }
}

#[test]
fn framing_fields_are_made_to_agree() {
    let head = "POST / HTTP/1.1¶Host: a¶";
    for (fields, framing, expected) in [
        ("", Framing::Length(0), "Content-Length: 0¶"),
        ("", Framing::Length(u64::MAX), "Content-Length: 18446744073709551615¶"),
        ("A: b¶", Framing::Chunked, "A: b¶Transfer-Encoding: chunked¶"),
        ("Content-Length: 5¶A: b¶", Framing::Chunked, "A: b¶Transfer-Encoding: chunked¶"),
        ("Content-Length: 5¶A: b¶", Framing::Length(6), "A: b¶Content-Length: 6¶"),
        ("Content-Length: 005¶A: b¶", Framing::Length(5), "A: b¶Content-Length: 5¶"),
        ("Transfer-Encoding: chunked¶A: b¶", Framing::Length(5), "A: b¶Content-Length: 5¶"),
        ("Transfer-Encoding: chunked¶A: b¶", Framing::None, "A: b¶"),
        ("Content-Length: 5¶A: b¶", Framing::None, "A: b¶"),
    ] {
        let found = recode(&format!("{head}{fields}¶"), framing);
        assert_eq!(found, format!("{head}{expected}¶"), "{fields}");
    }
}

#[test]
fn odd_spacing_is_not_forwarded() {
    assert_eq!(
        recode("GET / HTTP/1.1¶Host:a¶B:\t c \t¶D: e¶F:¶¶", Framing::None),
        "GET / HTTP/1.1¶Host: a¶B: c¶D: e¶F: ¶¶"
    );
}

#[test]
fn a_missing_host_is_written_from_the_authority() {
    let mut head = RequestHead::new();
    head.set_method(b"GET");
    head.set_target(b"/x");
    head.set_authority(b"b:8080");
    head.fields.append(b"a", b"1");
    let mut out = Vec::new();
    encode_request(&head, Framing::None, &mut out);
    assert_eq!(text(&out), "GET /x HTTP/1.1¶Host: b:8080¶a: 1¶¶");
}

#[test]
fn responses_without_a_body_keep_the_length_they_may() {
    let recode = |input: &str, head: bool, framing| {
        let to = ResponseTo { head, ..ResponseTo::default() };
        let mut response = ResponseHead::new();
        ResponseDecoder::new(LIMITS).decode(&bytes(input), to, &mut response).unwrap().unwrap();
        let mut out = Vec::new();
        encode_response(&response, framing, &mut out);
        text(&out)
    };
    for (input, head, framing, expected) in [
        ("HTTP/1.1 200 OK¶content-length: 5¶¶", true, Framing::None, "HTTP/1.1 200 OK¶content-length: 5¶¶"),
        ("HTTP/1.1 304 N¶Content-Length: 5¶A: b¶¶", false, Framing::None, "HTTP/1.1 304 N¶Content-Length: 5¶A: b¶¶"),
        ("HTTP/1.1 204 N¶Content-Length: 5¶A: b¶¶", false, Framing::None, "HTTP/1.1 204 N¶A: b¶¶"),
        ("HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶", true, Framing::None, "HTTP/1.1 200 OK¶¶"),
        ("HTTP/1.0 200 OK¶¶", false, Framing::UntilClose, "HTTP/1.1 200 OK¶¶"),
        ("HTTP/1.0 200 OK¶¶", false, Framing::Chunked, "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶"),
        ("HTTP/1.1 200¶Transfer-Encoding: chunked¶¶", false, Framing::UntilClose, "HTTP/1.1 200 ¶¶"),
    ] {
        assert_eq!(recode(input, head, framing), expected, "{input}");
    }
}

#[test]
fn chunks_are_framed_and_lengths_watched() {
    let mut out = Vec::new();
    let mut body = BodyEncoder::new(Framing::Chunked);
    body.data(&[b'x'; 26], &mut out).unwrap();
    body.data(b"", &mut out).unwrap();
    let mut trailers = Fields::new();
    trailers.append(b"A", b"b");
    body.trailers(&trailers, &mut out).unwrap();
    body.end(&mut out).unwrap();
    assert_eq!(text(&out), format!("1a¶{}¶0¶A: b¶¶", "x".repeat(26)));

    let mut out = Vec::new();
    let mut body = BodyEncoder::new(Framing::Length(5));
    body.data(b"abc", &mut out).unwrap();
    assert_eq!(body.end(&mut out), Err(EncodeError::TooShort { missing: 2 }));
    assert_eq!(body.data(b"defg", &mut out), Err(EncodeError::TooLong { excess: 2 }));
    body.data(b"de", &mut out).unwrap();
    body.trailers(&trailers, &mut out).unwrap();
    assert_eq!(text(&out), "abcde");

    let mut out = Vec::new();
    let mut body = BodyEncoder::new(Framing::None);
    assert_eq!(body.data(b"a", &mut out), Err(EncodeError::TooLong { excess: 1 }));
    body.end(&mut out).unwrap();
    assert!(out.is_empty());
}

#[test]
fn fields_of_this_hop_end_here() {
    for (fields, keep_upgrade, expected) in [
        ("A: b¶", false, "A: b¶"),
        ("Connection: close, X-One¶x-one: 1¶A: b¶connection: x-Two¶X-two: 2¶", false, "A: b¶"),
        ("Keep-Alive: 5¶Proxy-Connection: x¶Upgrade: h2c¶HTTP2-Settings: x¶A: b¶", false, "A: b¶"),
        (
            "Upgrade: websocket¶Connection: keep-alive, Upgrade¶A: b¶",
            true,
            "Upgrade: websocket¶Connection: Upgrade¶A: b¶",
        ),
        ("Upgrade: websocket¶Connection: Upgrade¶A: b¶", false, "A: b¶"),
        ("TE: gzip;q=1, trailers¶Connection: TE¶", false, "TE: trailers¶Connection: TE¶"),
        ("te: trailers¶", false, "te: trailers¶Connection: TE¶"),
        ("TE: gzip¶Connection: TE¶", false, ""),
        (
            "Trailer: x¶Connection: trailer, host, content-length¶Content-Length: 5¶",
            false,
            "Trailer: x¶Content-Length: 5¶",
        ),
    ] {
        let (mut head, _) =
            decode_whole(&bytes(&format!("GET / HTTP/1.1¶Host: a¶{fields}¶")), LIMITS).unwrap().unwrap();
        strip_hop_by_hop(&mut head.fields, keep_upgrade);
        head.fields.remove("host");
        let mut out = Vec::new();
        head.fields.write_lines(&mut out);
        assert_eq!(text(&out), expected, "{fields}");
    }
}

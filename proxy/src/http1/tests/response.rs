//! Response heads.

use super::super::{HeadError, ParsedResponse, ResponseDecoder, ResponseTo};
use super::*;
use crate::http::ResponseHead;

fn decode(input: &[u8], to: ResponseTo, step: usize) -> Result<Option<(ResponseHead, ParsedResponse)>, HeadError> {
    let mut head = ResponseHead::new();
    let mut decoder = ResponseDecoder::new(LIMITS);
    let mut end = 0;
    loop {
        end = (end + step).min(input.len());
        if let Some(parsed) = decoder.decode(&input[..end], to, &mut head)? {
            return Ok(Some((head, parsed)));
        }
        if end == input.len() {
            return Ok(None);
        }
    }
}

/// What the decoder makes of `input`, as the response to `method`.
fn verdict(method: &str, input: &str) -> String {
    let to = ResponseTo { head: method == "HEAD", connect: method == "CONNECT", upgrade: method == "UPGRADE" };
    let input = bytes(input);
    let whole = decode(&input, to, usize::MAX / 2);
    assert_eq!(whole, decode(&input, to, 1));
    match whole {
        Err(error) => format!("{error:?}"),
        Ok(None) => "incomplete".to_owned(),
        Ok(Some((head, parsed))) => {
            let mut line = format!("{} {:?} {}", head.status(), text(head.reason()), framing_text(parsed.framing));
            for (flag, name) in
                [(parsed.keep_alive, " keep-alive"), (parsed.interim, " interim"), (parsed.tunnel, " tunnel")]
            {
                if flag {
                    line.push_str(name);
                }
            }
            line
        }
    }
}

fn check(table: &[(&str, &str, &str)]) {
    for (method, input, expected) in table {
        assert_eq!(verdict(method, input), *expected, "{method} {input}");
    }
}

#[test]
fn reads_status_lines() {
    check(&[
        ("GET", "HTTP/1.1 200 OK¶Content-Length: 1¶¶", "200 \"OK\" length=1 keep-alive"),
        ("GET", "HTTP/1.1 200 ¶Content-Length: 1¶¶", "200 \"\" length=1 keep-alive"),
        ("GET", "HTTP/1.1 200¶Content-Length: 1¶¶", "200 \"\" length=1 keep-alive"),
        ("GET", "HTTP/1.1 599 a b\u{e9}¶Content-Length: 1¶¶", "599 \"a b\u{e9}\" length=1 keep-alive"),
        ("GET", "HTTP/1.1 999 x¶Content-Length: 1¶¶", "999 \"x\" length=1 keep-alive"),
        ("GET", "HTTP/1.1 099 x¶¶", "StatusLine"),
        ("GET", "HTTP/1.1 20 x¶¶", "StatusLine"),
        ("GET", "HTTP/1.1 2000 x¶¶", "StatusLine"),
        ("GET", "HTTP/1.1  200 x¶¶", "StatusLine"),
        ("GET", "HTTP/1.1 +20 x¶¶", "StatusLine"),
        ("GET", "HTTP/1.1 200\tx¶¶", "StatusLine"),
        ("GET", "HTTP/1.1 200 x\0¶¶", "StatusLine"),
        ("GET", "HTTP/1.1 200 x\ry¶¶", "BareCarriageReturn"),
        ("GET", "HTTP/1.1 200 x\ny: z¶¶", "BareLineFeed"),
        ("GET", "HTTP/2.0 200 x¶¶", "Version"),
        ("GET", "ICY 200 OK¶¶", "StatusLine"),
        ("GET", "¶HTTP/1.1 200 OK¶¶", "StatusLine"),
        ("GET", "HTTP/1.1 200 OK¶Content-Length: 1¶", "incomplete"),
    ]);
}

/// RFC 9112 §6.3, in its order.
#[test]
fn delimits_the_body_by_request_status_and_fields() {
    check(&[
        ("HEAD", "HTTP/1.1 200 OK¶Content-Length: 5¶¶", "200 \"OK\" none keep-alive"),
        ("HEAD", "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶", "200 \"OK\" none keep-alive"),
        ("HEAD", "HTTP/1.1 200 OK¶¶", "200 \"OK\" none keep-alive"),
        ("GET", "HTTP/1.1 304 x¶Content-Length: 5¶¶", "304 \"x\" none keep-alive"),
        ("GET", "HTTP/1.1 204 x¶¶", "204 \"x\" none keep-alive"),
        ("GET", "HTTP/1.1 204 x¶Content-Length: 0¶¶", "204 \"x\" none keep-alive"),
        // It may send the body it announces: never reuse that connection.
        ("GET", "HTTP/1.1 204 x¶Content-Length: 5¶¶", "204 \"x\" none"),
        ("GET", "HTTP/1.1 204 x¶Transfer-Encoding: chunked¶¶", "204 \"x\" none"),
        ("GET", "HTTP/1.1 100 Continue¶¶", "100 \"Continue\" none keep-alive interim"),
        ("GET", "HTTP/1.1 103 Early¶Link: x¶¶", "103 \"Early\" none keep-alive interim"),
        ("UPGRADE", "HTTP/1.1 101 x¶Upgrade: websocket¶¶", "101 \"x\" none tunnel"),
        ("GET", "HTTP/1.1 101 x¶Upgrade: websocket¶¶", "UnsolicitedUpgrade"),
        ("CONNECT", "HTTP/1.1 200 x¶Content-Length: 5¶¶", "200 \"x\" none tunnel"),
        ("CONNECT", "HTTP/1.1 407 x¶Content-Length: 5¶¶", "407 \"x\" length=5 keep-alive"),
        ("GET", "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶", "200 \"OK\" chunked keep-alive"),
        ("GET", "HTTP/1.1 200 OK¶¶", "200 \"OK\" until-close"),
        ("GET", "HTTP/1.1 200 OK¶Connection: close¶Content-Length: 5¶¶", "200 \"OK\" length=5"),
        ("GET", "HTTP/1.0 200 OK¶Content-Length: 5¶¶", "200 \"OK\" length=5"),
        ("GET", "HTTP/1.0 200 OK¶Connection: keep-alive¶Content-Length: 5¶¶", "200 \"OK\" length=5 keep-alive"),
    ]);
}

#[test]
fn refuses_what_could_split_or_smuggle_a_response() {
    check(&[
        ("GET", "HTTP/1.1 200 OK¶Content-Length: 5¶Transfer-Encoding: chunked¶¶", "ContentLengthWithTransferEncoding"),
        ("HEAD", "HTTP/1.1 200 OK¶Content-Length: 5¶Transfer-Encoding: chunked¶¶", "ContentLengthWithTransferEncoding"),
        ("GET", "HTTP/1.1 200 OK¶Content-Length: 5¶Content-Length: 6¶¶", "RepeatedContentLength"),
        ("GET", "HTTP/1.1 200 OK¶Content-Length: 5x¶¶", "InvalidContentLength"),
        ("GET", "HTTP/1.1 200 OK¶Transfer-Encoding: gzip, chunked¶¶", "UnknownTransferCoding"),
        ("GET", "HTTP/1.1 200 OK¶Transfer-Encoding: gzip¶¶", "InvalidTransferEncoding"),
        ("GET", "HTTP/1.0 200 OK¶Transfer-Encoding: chunked¶¶", "TransferEncodingInHttp10"),
        ("GET", "HTTP/1.1 200 OK¶X: a¶ b¶¶", "ObsFold"),
        ("GET", "HTTP/1.1 200 OK¶X : a¶¶", "SpaceBeforeColon"),
        ("GET", "HTTP/1.1 200 OK¶X: a\rb¶¶", "BareCarriageReturn"),
        ("GET", "HTTP/1.1 200 OK¶X: a\0¶¶", "FieldValue"),
    ]);
}

#[test]
fn a_tunnel_shows_no_length() {
    let to = ResponseTo { connect: true, ..ResponseTo::default() };
    let input = bytes("HTTP/1.1 200 OK¶content-length: 5¶A: b¶¶");
    let (head, _) = decode(&input, to, 1).unwrap().unwrap();
    assert_eq!(head.fields.len(), 1);
}

#[test]
fn decodes_interim_responses_before_the_final_one() {
    let input = bytes("HTTP/1.1 100 Continue¶¶HTTP/1.1 200 OK¶Content-Length: 0¶¶");
    let mut decoder = ResponseDecoder::new(LIMITS);
    let mut head = ResponseHead::new();
    let to = ResponseTo::default();
    let first = decoder.decode(&input, to, &mut head).unwrap().unwrap();
    assert!(first.interim);
    let second = decoder.decode(&input[first.consumed..], to, &mut head).unwrap().unwrap();
    assert_eq!((head.status(), second.framing), (200, Framing::Length(0)));
}

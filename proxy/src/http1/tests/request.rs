//! Request heads.

use super::super::{HeadError, Limits, RequestDecoder};
use super::*;

/// What the decoder makes of `input`: method, target, authority, framing and flags, or the error.
fn verdict(input: &str, limits: Limits) -> String {
    let input = bytes(input);
    let whole = decode_whole(&input, limits);
    assert_eq!(whole, decode_bytewise(&input, limits), "{}", text(&input));
    match whole {
        Err(error) => format!("{} {error:?}", error.status()),
        Ok(None) => "incomplete".to_owned(),
        Ok(Some((head, parsed))) => {
            let mut line = format!(
                "{} {} for {} {}",
                text(head.method()),
                text(head.target()),
                text(head.authority()),
                framing_text(parsed.framing)
            );
            for (flag, name) in [
                (parsed.keep_alive, " keep-alive"),
                (parsed.expect_continue, " expect"),
                (parsed.upgrade, " upgrade"),
                (parsed.connect, " connect"),
            ] {
                if flag {
                    line.push_str(name);
                }
            }
            if parsed.consumed < input.len() {
                line.push_str(&format!(" then {}", text(&input[parsed.consumed..])));
            }
            line
        }
    }
}

fn check(table: &[(&str, &str)]) {
    for (input, expected) in table {
        assert_eq!(verdict(input, LIMITS), *expected, "{input}");
    }
}

/// Each entry: fields added to `POST / HTTP/1.1¶Host: a¶`, and what follows `POST / for a `, or the error.
fn check_fields(table: &[(&str, &str)]) {
    for (fields, expected) in table {
        let found = verdict(&format!("POST / HTTP/1.1¶Host: a¶{fields}¶"), LIMITS);
        assert_eq!(found.trim_start_matches("POST / for a "), *expected, "{fields}");
    }
}

#[test]
fn accepts_what_clients_send() {
    check(&[
        ("GET / HTTP/1.1¶Host: a¶¶", "GET / for a none keep-alive"),
        ("GET / HTTP/1.1¶Host: a¶¶GET /2", "GET / for a none keep-alive then GET /2"),
        ("GET / HTTP/1.1¶hOST:a:8080¶¶", "GET / for a:8080 none keep-alive"),
        ("GET / HTTP/1.1¶Host: \t a \t ¶¶", "GET / for a none keep-alive"),
        ("GET / HTTP/1.1¶Host:¶¶", "GET / for  none keep-alive"),
        ("GET / HTTP/1.1¶Host: a¶Connection: close¶¶", "GET / for a none"),
        ("PROPFIND /x HTTP/1.1¶Host: a¶¶", "PROPFIND /x for a none keep-alive"),
        ("get / HTTP/1.1¶Host: a¶¶", "get / for a none keep-alive"),
        ("GET / HTTP/1.1¶Host: a¶X: \u{e9}\u{1F600}¶¶", "GET / for a none keep-alive"),
        ("GET / HTTP/1.1¶Host: a¶X: ¶Y:¶¶", "GET / for a none keep-alive"),
        ("GET / HTTP/1.1¶Host: a¶!#$%&'*+-.^_`|~9: x¶¶", "GET / for a none keep-alive"),
        ("GET / HTTP/1.1¶Host: a¶", "incomplete"),
        ("GET / HTTP/1.1¶Host: a¶\r", "incomplete"),
        ("", "incomplete"),
    ]);
}

#[test]
fn takes_targets_byte_for_byte() {
    for target in
        ["/a//b/../c/%2F%zz", "/?a=b?c&d=#frag", "/<>`{}|^\\\"", "/\u{e9}", "//other/x", "/http://other", "/a;b,c=d@e"]
    {
        let found = verdict(&format!("GET {target} HTTP/1.1¶Host: a¶¶"), LIMITS);
        assert_eq!(found, format!("GET {target} for a none keep-alive"));
    }
}

#[test]
fn knows_the_forms_of_a_target() {
    check(&[
        ("OPTIONS * HTTP/1.1¶Host: a¶¶", "OPTIONS * for a none keep-alive"),
        ("GET * HTTP/1.1¶Host: a¶¶", "400 Target"),
        ("GET a HTTP/1.1¶Host: a¶¶", "400 Target"),
        ("GET a:80 HTTP/1.1¶Host: a¶¶", "400 Target"),
        ("GET ?q HTTP/1.1¶Host: a¶¶", "400 Target"),
        ("GET http://b/x HTTP/1.1¶Host: b¶¶", "GET http://b/x for b none keep-alive"),
        ("GET http://b:80?q HTTP/1.1¶Host: b¶¶", "GET http://b:80/?q for b:80 none keep-alive"),
        ("GET http:///x HTTP/1.1¶Host: b¶¶", "400 Target"),
        ("GET http://:80/x HTTP/1.1¶Host: b¶¶", "400 Target"),
        ("GET http://u:p@b/x HTTP/1.1¶Host: b¶¶", "400 Target"),
        ("GET http://b:x/ HTTP/1.1¶Host: b¶¶", "400 Target"),
        ("GET http:/b HTTP/1.1¶Host: b¶¶", "400 Target"),
        ("GET http://b/x HTTP/1.1¶¶", "400 MissingHost"),
        ("CONNECT b:443 HTTP/1.1¶Host: b:443¶¶", "CONNECT b:443 for b:443 none keep-alive connect"),
        ("CONNECT [::1]:443 HTTP/1.1¶Host: x¶¶", "CONNECT [::1]:443 for [::1]:443 none keep-alive connect"),
        ("CONNECT b HTTP/1.1¶Host: b¶¶", "400 ConnectTarget"),
        ("CONNECT b: HTTP/1.1¶Host: b¶¶", "400 ConnectTarget"),
        ("CONNECT :443 HTTP/1.1¶Host: b¶¶", "400 ConnectTarget"),
        ("CONNECT /x HTTP/1.1¶Host: b¶¶", "400 ConnectTarget"),
        ("CONNECT http://b:443 HTTP/1.1¶Host: b¶¶", "400 ConnectTarget"),
        ("CONNECT b:443 HTTP/1.1¶Host: b¶Content-Length: 3¶¶", "400 ConnectBody"),
        ("CONNECT b:443 HTTP/1.1¶Host: b¶Transfer-Encoding: chunked¶¶", "400 ConnectBody"),
    ]);
}

/// RFC 9112 §3.2.2: what comes after us must not be able to prefer the Host field.
#[test]
fn an_absolute_target_overrules_the_host_field() {
    let input = bytes("GET http://real/x HTTP/1.1¶A: 1¶Host: other¶B: 2¶¶");
    let (head, _) = decode_whole(&input, LIMITS).unwrap().unwrap();
    assert_eq!(head.fields.get("host"), Some(&b"real"[..]));
    let names: Vec<_> = head.fields.iter().map(|(name, _)| text(name)).collect();
    assert_eq!(names, ["A", "Host", "B"]);
}

#[test]
fn refuses_malformed_request_lines() {
    check(&[
        ("GET /¶Host: a¶¶", "400 RequestLine"),
        ("GET¶¶", "400 RequestLine"),
        ("GET  / HTTP/1.1¶Host: a¶¶", "400 RequestLine"),
        ("GET /  HTTP/1.1¶Host: a¶¶", "400 RequestLine"),
        ("GET /a b HTTP/1.1¶Host: a¶¶", "400 RequestLine"),
        ("GET / HTTP/1.1 ¶Host: a¶¶", "400 RequestLine"),
        (" GET / HTTP/1.1¶Host: a¶¶", "400 RequestLine"),
        ("GET\t/ HTTP/1.1¶Host: a¶¶", "400 RequestLine"),
        ("GET /\tHTTP/1.1¶Host: a¶¶", "400 RequestLine"),
        ("G@T / HTTP/1.1¶Host: a¶¶", "400 RequestLine"),
        ("GET /\x01 HTTP/1.1¶Host: a¶¶", "400 RequestLine"),
        ("GET /\0 HTTP/1.1¶Host: a¶¶", "400 RequestLine"),
        ("GET /\x7f HTTP/1.1¶Host: a¶¶", "400 RequestLine"),
        ("GET / http/1.1¶Host: a¶¶", "400 RequestLine"),
        ("GET / HTTP/1.1x¶Host: a¶¶", "400 RequestLine"),
        ("GET / HTTP/11¶Host: a¶¶", "400 RequestLine"),
        ("GET / HTTP/1.2¶Host: a¶¶", "505 Version"),
        ("GET / HTTP/2.0¶Host: a¶¶", "505 Version"),
        ("PRI * HTTP/2.0¶¶SM¶¶", "505 Version"),
        ("GET / HTTP/0.9¶¶", "505 Version"),
        ("GET /\r HTTP/1.1¶Host: a¶¶", "400 BareCarriageReturn"),
    ]);
}

#[test]
fn refuses_odd_line_ends_and_field_lines() {
    check(&[
        ("GET / HTTP/1.1\nHost: a¶¶", "400 BareLineFeed"),
        ("GET / HTTP/1.1¶Host: a\n¶", "400 BareLineFeed"),
        ("GET / HTTP/1.1¶Host: a¶\n", "400 BareLineFeed"),
        ("\nGET / HTTP/1.1¶Host: a¶¶", "400 BareLineFeed"),
        ("GET / HTTP/1.1¶Host: a\r\r\n¶", "400 BareCarriageReturn"),
    ]);
    check_fields(&[
        ("X: a\rb¶", "400 BareCarriageReturn"),
        ("X: a\r\r\n", "400 BareCarriageReturn"),
        ("X: a\nb¶", "400 BareLineFeed"),
        ("X: a¶ b¶", "400 ObsFold"),
        ("X: a¶\tb¶", "400 ObsFold"),
        (" X: a¶", "400 ObsFold"),
        ("X: a¶ ¶", "400 ObsFold"),
        ("X : a¶", "400 SpaceBeforeColon"),
        ("X\t: a¶", "400 SpaceBeforeColon"),
        ("X y: a¶", "400 SpaceBeforeColon"),
        (": a¶", "400 FieldName"),
        ("X¶", "400 FieldName"),
        ("X@: a¶", "400 FieldName"),
        ("\u{e9}: a¶", "400 FieldName"),
        ("X\0: a¶", "400 FieldName"),
        ("X: \0¶", "400 FieldValue"),
        ("X: a\x0bb¶", "400 FieldValue"),
        ("X: \x7f¶", "400 FieldValue"),
        ("X: \x1b[0m¶", "400 FieldValue"),
    ]);
}

#[test]
fn wants_exactly_one_valid_host() {
    check(&[
        ("GET / HTTP/1.1¶¶", "400 MissingHost"),
        ("GET / HTTP/1.1¶Host: a¶Host: a¶¶", "400 DuplicateHost"),
        ("GET / HTTP/1.0¶Host: a¶hosT: b¶¶", "400 DuplicateHost"),
        ("GET / HTTP/1.1¶Host: a b¶¶", "400 InvalidHost"),
        ("GET / HTTP/1.1¶Host: a/b¶¶", "400 InvalidHost"),
        ("GET / HTTP/1.1¶Host: u@a¶¶", "400 InvalidHost"),
        ("GET / HTTP/1.1¶Host: a:b¶¶", "400 InvalidHost"),
        ("GET / HTTP/1.1¶Host: ::1¶¶", "400 InvalidHost"),
        ("GET / HTTP/1.1¶Host: [::1]:80¶¶", "GET / for [::1]:80 none keep-alive"),
    ]);
}

#[test]
fn delimits_bodies_in_one_way_or_not_at_all() {
    check_fields(&[
        ("", "none keep-alive"),
        ("Content-Length: 0¶", "length=0 keep-alive"),
        ("content-length:\t7 ¶", "length=7 keep-alive"),
        ("Content-Length: 007¶", "length=7 keep-alive"),
        ("Content-Length: 9223372036854775807¶", "length=9223372036854775807 keep-alive"),
        ("Content-Length: 9223372036854775808¶", "400 InvalidContentLength"),
        ("Content-Length: 99999999999999999999999¶", "400 InvalidContentLength"),
        ("Content-Length:¶", "400 InvalidContentLength"),
        ("Content-Length: +5¶", "400 InvalidContentLength"),
        ("Content-Length: -5¶", "400 InvalidContentLength"),
        ("Content-Length: 5 5¶", "400 InvalidContentLength"),
        ("Content-Length: 0x5¶", "400 InvalidContentLength"),
        ("Content-Length: 5;¶", "400 InvalidContentLength"),
        ("Content-Length: 5.0¶", "400 InvalidContentLength"),
        ("Content-Length: 5, 5¶", "400 RepeatedContentLength"),
        ("Content-Length: 5, 6¶", "400 RepeatedContentLength"),
        ("Content-Length: 5¶Content-Length: 5¶", "400 RepeatedContentLength"),
        ("Content-Length: 5¶content-length: 6¶", "400 RepeatedContentLength"),
        ("Transfer-Encoding: chunked¶", "chunked keep-alive"),
        ("transfer-encoding:\tCHUNKed ¶", "chunked keep-alive"),
        ("Transfer-Encoding: chunked¶Content-Length: 5¶", "400 ContentLengthWithTransferEncoding"),
        ("Content-Length: 0¶Transfer-Encoding: x¶", "400 ContentLengthWithTransferEncoding"),
        ("Transfer-Encoding:¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: identity¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: gzip¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: gzip, chunked¶", "501 UnknownTransferCoding"),
        ("Transfer-Encoding: foo;q=\"1\", chunked¶", "501 UnknownTransferCoding"),
        ("Transfer-Encoding: chunked, gzip¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: chunked, chunked¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: chunked,¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: ,chunked¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: chunked¶Transfer-Encoding: chunked¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: gzip¶Transfer-Encoding: chunked¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: xchunked¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: chunked;x=y¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: \"chunked\"¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: chunk ed¶", "400 InvalidTransferEncoding"),
        ("Transfer-Encoding: \x0bchunked¶", "400 FieldValue"),
        ("Transfer_Encoding: chunked¶", "none keep-alive"),
        ("Transfer-Encoding : chunked¶", "400 SpaceBeforeColon"),
    ]);
}

#[test]
fn reads_what_is_said_of_the_connection() {
    check_fields(&[
        ("Connection: close¶", "none"),
        ("Connection: x, CLOSE , y¶", "none"),
        ("Connection: keep-alive¶Connection: close¶", "none"),
        ("Connection: closed¶", "none keep-alive"),
        ("Content-Length: 1¶Expect: 100-Continue¶", "length=1 keep-alive expect"),
        ("Expect: 100-continue¶", "none keep-alive"),
        ("Content-Length: 1¶Expect: x¶", "length=1 keep-alive"),
        ("Connection: Upgrade¶Upgrade: websocket¶", "none keep-alive upgrade"),
        ("Connection: keep-alive, upgrade¶Upgrade: websocket¶", "none keep-alive upgrade"),
        ("Upgrade: websocket¶", "none keep-alive"),
        ("Connection: upgrade¶", "none keep-alive"),
        ("Connection: upgrade¶Upgrade:¶", "none keep-alive"),
    ]);
}

#[test]
fn serves_http_1_0_where_accepted() {
    check(&[
        ("GET / HTTP/1.0¶¶", "GET / for  none"),
        ("GET / HTTP/1.0¶Host: a¶Connection: Keep-Alive¶¶", "GET / for a none keep-alive"),
        ("GET / HTTP/1.0¶Connection: keep-alive, close¶¶", "GET / for  none"),
        ("GET http://b/ HTTP/1.0¶¶", "GET http://b/ for b none"),
        ("POST / HTTP/1.0¶Content-Length: 3¶Expect: 100-continue¶¶", "POST / for  length=3"),
        ("POST / HTTP/1.0¶Transfer-Encoding: chunked¶¶", "400 TransferEncodingInHttp10"),
        ("GET / HTTP/1.0¶Connection: upgrade¶Upgrade: x¶¶", "GET / for  none"),
    ]);
    let found = verdict("GET / HTTP/1.0¶¶", Limits::default());
    assert_eq!(found, "426 Http10NotAccepted");
}

#[test]
fn ignores_a_few_empty_lines_between_requests() {
    check(&[
        ("¶GET / HTTP/1.1¶Host: a¶¶", "GET / for a none keep-alive"),
        ("¶¶¶¶GET / HTTP/1.1¶Host: a¶¶", "GET / for a none keep-alive"),
        ("¶¶¶¶¶GET / HTTP/1.1¶Host: a¶¶", "400 LeadingEmptyLines { limit: 4 }"),
        ("¶\rGET / HTTP/1.1¶Host: a¶¶", "400 BareCarriageReturn"),
    ]);
    let mut decoder = RequestDecoder::new(LIMITS);
    let mut head = RequestHead::new();
    for (input, idle) in [("", true), ("\r", true), ("\r\n", true), ("\r\n\r", true), ("\r\nG", false)] {
        assert_eq!(decoder.decode(input.as_bytes(), &mut head), Ok(None));
        assert_eq!(decoder.is_between_requests(input.as_bytes()), idle, "{input:?}");
    }
}

#[test]
fn limits_are_exact_and_named() {
    let fits = "GET / HTTP/1.1¶Host: a¶¶";
    let limits = |max_head_bytes, max_fields| Limits { max_head_bytes, max_fields, accept_http10: false };
    let length = bytes(fits).len();
    assert_eq!(verdict(fits, limits(length, 1)), "GET / for a none keep-alive");
    assert_eq!(verdict(fits, limits(length - 1, 1)), format!("431 HeadTooLarge {{ limit: {} }}", length - 1));
    // Empty lines before it are not part of the head.
    assert_eq!(verdict(&format!("¶{fits}"), limits(length, 1)), "GET / for a none keep-alive");
    assert_eq!(verdict(fits, limits(length, 0)), "431 TooManyFields { limit: 0 }");
    assert_eq!(verdict("GET /aaaaaaaaaaaaaaaaaaaaaaaa", limits(20, 9)), "414 FirstLineTooLong { limit: 20 }");
    let error = HeadError::HeadTooLarge { limit: 65536 };
    assert_eq!(error.to_string(), "the head is larger than the limit of 65536 bytes (max_request_headers_kb)");
}

#[test]
fn decodes_pipelined_requests_one_after_the_other() {
    let input = bytes("GET /1 HTTP/1.1¶Host: a¶¶¶GET /2 HTTP/1.1¶Host: b¶¶");
    let mut decoder = RequestDecoder::new(LIMITS);
    let mut head = RequestHead::new();
    let first = decoder.decode(&input, &mut head).unwrap().unwrap();
    assert_eq!(head.target(), b"/1");
    decoder.decode(&input[first.consumed..], &mut head).unwrap().unwrap();
    assert_eq!((head.target(), head.authority()), (&b"/2"[..], &b"b"[..]));
}

/// An attacker's CPU lever otherwise: each byte would cost a scan of all before it.
#[test]
fn looks_at_each_byte_once_however_it_arrives() {
    let mut input = bytes("GET / HTTP/1.1¶Host: a¶X: ");
    input.extend(std::iter::repeat_n(b'x', 4 << 20));
    input.extend_from_slice(b"\r\n\r\n");
    let limits = Limits { max_head_bytes: 8 << 20, ..LIMITS };
    // 4 Mi calls; quadratic work would be 8 * 10^12 bytes.
    assert!(decode_bytewise(&input, limits).unwrap().is_some());
}

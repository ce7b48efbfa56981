//! Heads there and back, in HTTP/1.1's text. `¶` stands for CR LF.

use super::*;
use crate::http::{RequestHead, ResponseHead};
use crate::http1::{
    Limits, RequestDecoder, ResponseDecoder, ResponseTo, encode_request, encode_response, strip_hop_by_hop,
};
use http::{Request, Response};

fn bytes(text: &str) -> Vec<u8> {
    text.replace('¶', "\r\n").into_bytes()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "¶")
}

fn request_head(input: &str) -> RequestHead {
    let mut head = RequestHead::new();
    RequestDecoder::new(Limits::default()).decode(&bytes(input), &mut head).unwrap().unwrap();
    head
}

fn response_head(input: &str) -> ResponseHead {
    let mut head = ResponseHead::new();
    let to = ResponseTo { upgrade: true, ..ResponseTo::default() };
    ResponseDecoder::new(Limits::default()).decode(&bytes(input), to, &mut head).unwrap().unwrap();
    head
}

/// `:method :scheme :authority :path [protocol]¶name: value¶…` of what h2 would be given.
fn h2_text(request: &Request<()>) -> String {
    let uri = request.uri();
    let mut out = format!(
        "{} {} {} {}",
        request.method(),
        uri.scheme_str().unwrap_or("-"),
        uri.authority().map_or("-", |a| a.as_str()),
        uri.path_and_query().map_or("-", |p| p.as_str()),
    );
    if let Some(protocol) = request.extensions().get::<h2::ext::Protocol>() {
        out.push_str(&format!(" [{}]", protocol.as_str()));
    }
    out.push('¶');
    for (name, value) in request.headers() {
        out.push_str(&format!("{name}: {}¶", text(value.as_bytes())));
    }
    out
}

fn to_h2(input: &str, extended_connect: bool) -> String {
    match request_to_h2(&request_head(input), extended_connect) {
        Ok(request) => h2_text(&request),
        Err(error) => format!("{} {error:?}", error.status()),
    }
}

/// From an HTTP/2 request to what an HTTP/1.1 server is sent.
fn from_h2(request: Request<()>) -> String {
    let (parts, ()) = request.into_parts();
    let mut head = RequestHead::new();
    if let Err(error) = request_from_h2(&parts, &mut head) {
        return format!("{} {error:?}", error.status());
    }
    websocket::ensure_key(&mut head, [7; 16]);
    strip_hop_by_hop(&mut head.fields, true);
    let framing = framing_from_h2(&head.fields, true).unwrap();
    let mut out = Vec::new();
    encode_request(&head, framing, &mut out);
    text(&out)
}

fn h2_request(method: &str, uri: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

#[test]
fn a_request_goes_to_http2_without_what_belongs_to_the_connection() {
    for (input, expected) in [
        (
            "GET /a?b=c HTTP/1.1¶Host: shop:80¶X-Odd: \u{e9}¶x-odd: 2¶¶",
            "GET http shop:80 /a?b=c¶x-odd: \u{e9}¶x-odd: 2¶",
        ),
        (
            "POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶Connection: keep-alive, X-Hop¶X-Hop: 1¶Keep-Alive: 5¶Proxy-Connection: x¶TE: gzip, trailers¶A: b¶¶",
            "POST http a /¶te: trailers¶a: b¶",
        ),
        (
            "POST / HTTP/1.1¶Host: a¶Connection: content-length¶Content-Length: 5¶TE: gzip¶¶",
            "POST http a /¶content-length: 5¶",
        ),
        (
            "GET / HTTP/1.1¶Host: a¶Cookie: a=1; b=2;c; d¶Cookie: e¶¶",
            "GET http a /¶cookie: a=1¶cookie: b=2;c¶cookie: d¶cookie: e¶",
        ),
        ("OPTIONS * HTTP/1.1¶Host: a¶¶", "OPTIONS http a *¶"),
        ("GET http://b/x HTTP/1.1¶Host: b¶¶", "GET http b /x¶"),
        ("CONNECT b:443 HTTP/1.1¶Host: b¶¶", "CONNECT - b:443 -¶"),
        ("GET / HTTP/1.1¶Host:¶¶", "400 MissingAuthority"),
        ("GET /a#b HTTP/1.1¶Host: a¶¶", "400 Path(\"/a#b\")"),
        ("GET /<a> HTTP/1.1¶Host: a¶¶", "400 Path(\"/<a>\")"),
        ("GET /`a HTTP/1.1¶Host: a¶¶", "400 Path(\"/`a\")"),
        ("GET /%3Ca%3E/../b//c HTTP/1.1¶Host: a¶¶", "GET http a /%3Ca%3E/../b//c¶"),
    ] {
        assert_eq!(to_h2(input, true), expected, "{input}");
    }
}

#[test]
fn a_request_comes_from_http2_as_an_http1_server_expects_it() {
    for (request, expected) in [
        (
            h2_request("GET", "https://shop/a?b", &[("x-odd", "1"), ("x-odd", "2")]),
            "GET /a?b HTTP/1.1¶Host: shop¶x-odd: 1¶x-odd: 2¶¶",
        ),
        (
            h2_request("GET", "https://shop/", &[("cookie", "a=1"), ("b", "c"), ("cookie", "d")]),
            "GET / HTTP/1.1¶Host: shop¶b: c¶cookie: a=1; d¶¶",
        ),
        (
            h2_request("POST", "https://shop/", &[("te", "trailers"), ("content-length", "0")]),
            "POST / HTTP/1.1¶Host: shop¶te: trailers¶content-length: 0¶Connection: TE¶¶",
        ),
        (h2_request("GET", "https://shop/", &[("host", "SHOP")]), "GET / HTTP/1.1¶Host: shop¶¶"),
        (h2_request("GET", "/x", &[("host", "b:1")]), "GET /x HTTP/1.1¶Host: b:1¶¶"),
        (h2_request("OPTIONS", "*", &[("host", "b")]), "OPTIONS * HTTP/1.1¶Host: b¶¶"),
        (h2_request("CONNECT", "b:443", &[]), "CONNECT b:443 HTTP/1.1¶Host: b:443¶¶"),
        (h2_request("GET", "/x", &[]), "400 MissingAuthority"),
        (
            h2_request("GET", "https://shop/", &[("host", "other")]),
            "400 AuthorityMismatch { host: \"other\", authority: \"shop\" }",
        ),
        (
            h2_request("GET", "https://shop/", &[("host", "shop"), ("host", "other")]),
            "400 AuthorityMismatch { host: \"other\", authority: \"shop\" }",
        ),
        (h2_request("GET", "https://u:p@shop/", &[]), "400 Authority(\"u:p@shop\")"),
        (h2_request("GET", "*", &[("host", "b")]), "400 Path(\"*\")"),
    ] {
        assert_eq!(from_h2(request), expected);
    }
}

#[test]
fn an_upgrade_is_an_extended_connect_and_back() {
    let client = "GET /chat HTTP/1.1¶Host: a¶Upgrade: websocket¶Connection: Upgrade¶Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==¶Sec-WebSocket-Version: 13¶¶";
    let carried = "CONNECT http a /chat [websocket]¶sec-websocket-version: 13¶";
    assert_eq!(to_h2(client, true), carried);
    assert_eq!(
        to_h2(client, false),
        "GET http a /chat¶sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==¶sec-websocket-version: 13¶"
    );

    let request = request_to_h2(&request_head(client), true).unwrap();
    assert_eq!(
        from_h2(request),
        "GET /chat HTTP/1.1¶Host: a¶sec-websocket-version: 13¶Connection: Upgrade¶Upgrade: websocket¶Sec-WebSocket-Key: BwcHBwcHBwcHBwcHBwcHBw==¶¶"
    );

    // The server's proof is for the key of the last hop, the client's for its own.
    let server = response_head(
        "HTTP/1.1 101 x¶Upgrade: websocket¶Connection: Upgrade¶Sec-WebSocket-Accept: other¶Sec-WebSocket-Protocol: chat¶¶",
    );
    let response = response_to_h2(&server).unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers().len(), 1);
    let (parts, ()) = response.into_parts();
    let mut head = ResponseHead::new();
    response_from_h2(&parts, Some(&request_head(client)), &mut head);
    let mut out = Vec::new();
    encode_response(&head, Framing::None, &mut out);
    assert_eq!(
        text(&out),
        "HTTP/1.1 101 Switching Protocols¶sec-websocket-protocol: chat¶Connection: Upgrade¶Upgrade: websocket¶Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=¶¶"
    );
}

#[test]
fn a_refused_upgrade_stays_a_refusal() {
    let request = request_head("GET / HTTP/1.1¶Host: a¶Upgrade: websocket¶Connection: Upgrade¶¶");
    let (parts, ()) = Response::builder().status(403).body(()).unwrap().into_parts();
    let mut head = ResponseHead::new();
    response_from_h2(&parts, Some(&request), &mut head);
    assert_eq!((head.status(), head.reason()), (403, &b"Forbidden"[..]));
    assert!(head.fields.is_empty());
}

#[test]
fn only_one_protocol_can_be_asked_for_by_an_extended_connect() {
    for (upgrade, expected) in
        [("a, b", "400 Protocol(\"a, b\")"), ("foo/2", "CONNECT http a / [foo/2]¶"), ("a/", "400 Protocol(\"a/\")")]
    {
        let input = format!("GET / HTTP/1.1¶Host: a¶Upgrade: {upgrade}¶Connection: Upgrade¶¶");
        assert_eq!(to_h2(&input, true), expected);
    }
}

#[test]
fn a_response_goes_there_and_back() {
    let head = response_head(
        "HTTP/1.1 404 Whatever¶Set-Cookie: a=1; b¶Set-Cookie: c; d¶Connection: close¶Transfer-Encoding: chunked¶¶",
    );
    let (parts, ()) = response_to_h2(&head).unwrap().into_parts();
    let mut back = ResponseHead::new();
    response_from_h2(&parts, None, &mut back);
    let mut out = Vec::new();
    encode_response(&back, framing_from_h2(&back.fields, false).unwrap(), &mut out);
    assert_eq!(text(&out), "HTTP/1.1 404 Not Found¶set-cookie: a=1; b¶set-cookie: c; d¶Transfer-Encoding: chunked¶¶");
}

#[test]
fn the_framing_follows_from_the_length_and_the_end_of_the_stream() {
    let framing = |lengths: &[&str], end_stream| {
        let mut fields = Fields::new();
        for length in lengths {
            fields.append(b"content-length", length.as_bytes());
        }
        framing_from_h2(&fields, end_stream)
    };
    assert_eq!(framing(&[], true), Ok(Framing::None));
    assert_eq!(framing(&[], false), Ok(Framing::Chunked));
    assert_eq!(framing(&["5"], false), Ok(Framing::Length(5)));
    assert_eq!(framing(&["5"], true), Ok(Framing::None));
    assert_eq!(framing(&["0"], true), Ok(Framing::Length(0)));
    for bad in [&["5", "5"][..], &["+5"], &[""], &["18446744073709551616"], &["5,5"]] {
        assert_eq!(framing(bad, false), Err(ConvertError::Length), "{bad:?}");
    }
}

#[test]
fn trailers_carry_neither_framing_nor_routing() {
    let mut fields = Fields::new();
    for name in ["grpc-status", "Content-Length", "Connection", "host"] {
        fields.append(name.as_bytes(), b"0");
    }
    let trailers = trailers_to_h2(&fields).unwrap();
    assert_eq!(trailers.len(), 1);
    let mut back = Fields::new();
    trailers_from_h2(&trailers, &mut back);
    assert_eq!(back.get("grpc-status"), Some(&b"0"[..]));

    let mut trailers = HeaderMap::new();
    trailers.insert("content-length", HeaderValue::from_static("5"));
    let mut back = Fields::new();
    trailers_from_h2(&trailers, &mut back);
    assert!(back.is_empty());
}

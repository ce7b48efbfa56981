//! Every kind of difference, and why it is there.

use std::fmt;

use super::Verdict;
use super::ours::Exchange;

/// One kind of difference between our verdict and a peer's.
pub(crate) struct Difference {
    /// Ours: `accept`, `incomplete`, or a refusal's error by name.
    ours: &'static str,
    /// Theirs, as [`Verdict`] is written.
    theirs: &'static str,
    /// Which heads it may happen to.
    when: fn(&Exchange) -> bool,
    /// Why we decide as we do.
    reason: &'static str,
}

impl Difference {
    /// Whether it explains that this exchange had `theirs` as the peer's verdict.
    pub(crate) fn covers(&self, exchange: &Exchange, theirs: Verdict) -> bool {
        let ours = match &exchange.error {
            Some(error) => name(&format!("{error:?}")).to_owned(),
            None => exchange.verdict.to_string(),
        };
        ours == self.ours && theirs.to_string() == self.theirs && (self.when)(exchange)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "we: {}, they: {}: {}", self.ours, self.theirs, self.reason)
    }
}

/// An error's name without its figures.
fn name(debug: &str) -> &str {
    debug.split([' ', '{']).next().unwrap_or(debug)
}

const fn listed(
    ours: &'static str,
    theirs: &'static str,
    when: fn(&Exchange) -> bool,
    reason: &'static str,
) -> Difference {
    Difference { ours, theirs, when, reason }
}

/// The table below was made with it.
pub(crate) const NGINX_VERSION: &str = "nginx/1.22.";

/// What hyper does otherwise: mostly what a proxy must not pass on, but a server that answers itself may take.
pub(crate) const HYPER: &[Difference] = &[
    listed(
        "BareLineFeed",
        "accept",
        any,
        "RFC 9112 §2.2 lets a recipient take LF as a line's end; two that differ in it can be played against each other, so we do not.",
    ),
    listed("BareLineFeed", "incomplete", any, "The same, where more lines were expected."),
    listed(
        "ConnectBody",
        "accept",
        any,
        "Content of CONNECT has no meaning (RFC 9110 §9.3.6): the next hop may take it for the tunnel's bytes.",
    ),
    listed("ConnectTarget", "accept", any, "The target of CONNECT is host:port and nothing else (RFC 9112 §3.2.3)."),
    listed(
        "ContentLengthWithTransferEncoding",
        "accept",
        any,
        "hyper drops Content-Length and closes after the response; RFC 9112 §6.1 lets a server refuse, and a proxy has the next hop to think of.",
    ),
    listed("DuplicateHost", "accept", any, "RFC 9112 §3.2 asks for 400; hyper leaves Host to its application."),
    listed("MissingHost", "accept", any, "As above."),
    listed("InvalidHost", "accept", any, "As above."),
    listed(
        "InvalidContentLength",
        "accept",
        has_transfer_encoding,
        "hyper does not look at Content-Length beside Transfer-Encoding.",
    ),
    listed(
        "InvalidContentLength",
        "accept",
        has_length_of_64_bits,
        "Readers with signed lengths take it for a negative one.",
    ),
    listed(
        "RepeatedContentLength",
        "accept",
        any,
        "RFC 9112 §6.3 lets equal ones pass; who repeats it may as well mean two messages, and nginx refuses it too.",
    ),
    listed(
        "InvalidTransferEncoding",
        "accept",
        any,
        "hyper looks for `chunked` at the end of the last line; the next hop may see more in empty members or in a second line.",
    ),
    listed(
        "UnknownTransferCoding",
        "accept",
        any,
        "RFC 9112 §6.1 asks for 501; hyper leaves other codings to its application.",
    ),
    listed(
        "Target",
        "accept",
        any,
        "hyper takes any form of target with any method, and authorities with user information.",
    ),
    listed(
        "accept",
        "400",
        target_refused_by_http_crate,
        "Paths travel byte for byte; the http crate's Uri refuses these bytes.",
    ),
    listed(
        "incomplete",
        "400",
        any,
        "hyper judges lines as they come; we judge a head once it is complete, bounded by its limit and by the caller's header timeout.",
    ),
];

/// What nginx does otherwise, as of [`NGINX_VERSION`].
pub(crate) const NGINX: &[Difference] = &[
    listed(
        "BareCarriageReturn",
        "accept",
        any,
        "nginx skips CR before the request line and takes CR CR LF for an end of line; RFC 9112 §2.2 asks to refuse or replace a bare CR.",
    ),
    listed(
        "BareLineFeed",
        "accept",
        any,
        "RFC 9112 §2.2 lets a recipient take LF as a line's end; two that differ in it can be played against each other, so we do not.",
    ),
    listed("BareLineFeed", "incomplete", any, "The same, where more lines were expected."),
    listed(
        "FieldName",
        "accept",
        any,
        "nginx drops lines with other names than tokens (ignore_invalid_headers) and goes on; what is dropped here may be read elsewhere.",
    ),
    listed(
        "FieldValue",
        "accept",
        any,
        "nginx passes control characters but NUL; RFC 9110 §5.5 asks to refuse or replace CR, LF and NUL, and calls the others invalid.",
    ),
    listed(
        "InvalidHost",
        "accept",
        any,
        "nginx cuts the port off unseen and takes any character but `/`, NUL and blanks in a name.",
    ),
    listed(
        "RequestLine",
        "accept",
        any,
        "nginx skips repeated spaces, takes a line without a version for HTTP/0.9, and more digits in a version.",
    ),
    listed(
        "RequestLine",
        "incomplete",
        any,
        "nginx takes a line without a version for HTTP/0.9, and answers GET without a head.",
    ),
    listed("Version", "accept", any, "nginx takes any HTTP/1.x; we know 1.0 and 1.1, and no other was ever made."),
    listed(
        "accept",
        "400",
        |e| !is_nginx_method(e.request.method()),
        "nginx takes methods of upper-case letters, `_` and `-`; RFC 9110 §9.1 says any token.",
    ),
    listed(
        "accept",
        "400",
        has_odd_host,
        "nginx refuses an empty Host and one with empty labels; both are by the grammar (RFC 3986 §3.2.2), and neither selects a route here.",
    ),
    listed(
        "accept",
        "400",
        |e| !is_decodable(e.request.target()),
        "nginx decodes paths to look for files; we pass them on as they are.",
    ),
    listed(
        "accept",
        "400",
        has_tab,
        "nginx does not trim tabs around values (RFC 9110 §5.6.3 does); we write a single space when we pass the field on.",
    ),
    listed(
        "accept",
        "400",
        |e| e.request.fields.get_all("expect").count() > 1,
        "nginx refuses some fields where they repeat; Expect is a list (RFC 9110 §10.1.1).",
    ),
    listed("accept", "501", has_tab, "As above, around `chunked`."),
    listed(
        "accept",
        "405",
        |e| matches!(e.request.method(), b"TRACE" | b"CONNECT"),
        "nginx refuses these methods whatever the head; we pass them on.",
    ),
    listed(
        "accept",
        "desynchronised",
        says_close_within_a_word,
        "nginx finds `close` anywhere in a Connection field; the connection ends, nothing is misread.",
    ),
    listed(
        "incomplete",
        "400",
        any,
        "nginx judges lines as they come; we judge a head once it is complete, bounded by its limit and by the caller's header timeout.",
    ),
    listed(
        "accept",
        "400",
        |e| e.request.target() == b"*",
        "nginx has no answer to `OPTIONS *` and refuses it as malformed.",
    ),
    listed("incomplete", "505", any, "As above."),
    listed("incomplete", "accept", any, "nginx takes a line without a version for HTTP/0.9."),
];

fn any(_: &Exchange) -> bool {
    true
}

fn has_transfer_encoding(exchange: &Exchange) -> bool {
    contains(&exchange.head.to_ascii_lowercase(), b"transfer-encoding")
}

fn has_length_of_64_bits(exchange: &Exchange) -> bool {
    contains(&exchange.head, b"9223372036854775808") || contains(&exchange.head, b"18446744073709551615")
}

fn target_refused_by_http_crate(exchange: &Exchange) -> bool {
    let target = exchange.request.target();
    std::str::from_utf8(target).is_err() || target.iter().any(|b| b"<>`|^\\\"{}".contains(b))
}

/// An empty name, or one with an empty label. The field as received: an absolute-form target has replaced it.
fn has_odd_host(exchange: &Exchange) -> bool {
    exchange.head.split(|b| *b == b'\n').any(|line| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix(b"host:")
            .map(<[u8]>::trim_ascii)
            .is_some_and(|host| host.is_empty() || host.starts_with(b".") || contains(host, b".."))
    })
}

/// Whether all that is percent-encoded is, and is not NUL.
fn is_decodable(target: &[u8]) -> bool {
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    path.split(|b| *b == b'%').skip(1).all(|escape| {
        matches!(escape, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() && (*a, *b) != (b'0', b'0'))
    })
}

fn is_nginx_method(method: &[u8]) -> bool {
    method.iter().all(|b| b.is_ascii_uppercase() || matches!(b, b'_' | b'-'))
}

fn has_tab(exchange: &Exchange) -> bool {
    exchange.head.contains(&b'\t')
}

fn says_close_within_a_word(exchange: &Exchange) -> bool {
    exchange.request.fields.get_all("connection").any(|value| contains(value, b"close"))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

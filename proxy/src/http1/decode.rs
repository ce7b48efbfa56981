//! Heads of requests and responses, from bytes.

use crate::http::{Framing, RequestHead, ResponseHead, Version, syntax};

use super::HeadError;
use super::section::{Facts, SectionEnd, TransferEncoding, parse_fields};

/// How large a head may be, and what is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the first line and the fields together, up to and with the empty line.
    pub max_head_bytes: usize,
    /// Number of fields; also of trailers.
    pub max_fields: usize,
    /// Whether HTTP/1.0 requests are taken (Envoy's `accept_http_10`); responses always are.
    pub accept_http10: bool,
}

impl Default for Limits {
    /// Envoy's defaults: 60 KiB, 100 fields, no HTTP/1.0.
    fn default() -> Self {
        Self { max_head_bytes: 60 * 1024, max_fields: 100, accept_http10: false }
    }
}

/// What a complete request head says beside its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Bytes of the input that were the head, ignored empty lines before it included.
    pub consumed: usize,
    /// How the body is delimited. Never `UntilClose`.
    pub framing: Framing,
    /// Whether the client wants another request on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for 100 before it sends the body that `framing` announces.
    pub expect_continue: bool,
    /// Whether the client asks for the protocol in its Upgrade field.
    pub upgrade: bool,
    /// Whether this is CONNECT: after a 2xx the connection is a tunnel.
    pub connect: bool,
}

/// Empty lines ignored before a request line: RFC 9112 §2.2 asks for one, for old clients that end a
/// body with one too many.
const MAX_EMPTY_LINES: usize = 4;

/// Decodes the request heads of one connection, one after the other.
#[derive(Debug)]
pub struct RequestDecoder {
    limits: Limits,
    /// Where the request line begins, after empty lines.
    start: usize,
    end: SectionEnd,
}

impl RequestDecoder {
    /// A decoder for a new connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, start: 0, end: SectionEnd::default() }
    }

    /// Decodes the head at the start of `input` into `head`, which is cleared first. `None`: it is not
    /// complete; call again with the same bytes and more after them. After `Some` the decoder expects `input` to start with
    /// the next request (the caller having taken `consumed` bytes and the body).
    ///
    /// # Errors
    /// Says what the client did wrong; the connection is of no further use, and `head` holds whatever was
    /// understood until then, for the log.
    pub fn decode(&mut self, input: &[u8], head: &mut RequestHead) -> Result<Option<Parsed>, HeadError> {
        self.skip_empty_lines(input)?;
        let window = limit_window(input, self.start, &self.limits);
        let Some(end) = self.end.find(window)? else {
            check_incomplete(window, self.start, &self.end, &self.limits)?;
            return Ok(None);
        };
        let mut parsed = parse_request(&input[self.start..end], &self.limits, head)?;
        parsed.consumed = end;
        *self = Self::new(self.limits);
        Ok(Some(parsed))
    }

    /// Whether nothing of a request has come yet: `input` is empty or holds only empty lines. An EOF is
    /// then a clean end.
    pub fn is_between_requests(&self, input: &[u8]) -> bool {
        input.len() <= self.start || input[self.start..] == *b"\r"
    }

    fn skip_empty_lines(&mut self, input: &[u8]) -> Result<(), HeadError> {
        while input[self.start..].starts_with(b"\r\n") {
            self.start += 2;
            self.end = SectionEnd::starting_at(self.start);
            if self.start > 2 * MAX_EMPTY_LINES {
                return Err(HeadError::LeadingEmptyLines { limit: MAX_EMPTY_LINES });
            }
        }
        Ok(())
    }
}

/// What a response answers: on it depends whether a body follows (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseTo {
    /// The request was HEAD.
    pub head: bool,
    /// The request was CONNECT.
    pub connect: bool,
    /// The request asked for an upgrade: 101 is allowed.
    pub upgrade: bool,
}

impl ResponseTo {
    /// The response to `request`, which was sent with its Upgrade field if `upgrade`.
    pub fn request(request: &RequestHead, upgrade: bool) -> Self {
        Self { head: request.is_head(), connect: request.is_connect(), upgrade }
    }
}

/// What a complete response head says beside its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedResponse {
    /// Bytes of the input that were the head.
    pub consumed: usize,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the connection can carry another request after the body.
    pub keep_alive: bool,
    /// Whether another response to the same request follows (1xx, but not 101).
    pub interim: bool,
    /// Whether the connection has become a tunnel (101, or 2xx to CONNECT).
    pub tunnel: bool,
}

/// Decodes the response heads of one connection, one after the other.
#[derive(Debug)]
pub struct ResponseDecoder {
    limits: Limits,
    end: SectionEnd,
}

impl ResponseDecoder {
    /// A decoder for a new connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, end: SectionEnd::default() }
    }

    /// Decodes the head at the start of `input` into `head`, as [`RequestDecoder::decode`] does. An interim
    /// response is decoded like a final one; the next call then decodes what follows it.
    ///
    /// # Errors
    /// Says what the server did wrong; the client is answered 502 and the connection is of no further use.
    pub fn decode(
        &mut self,
        input: &[u8],
        to: ResponseTo,
        head: &mut ResponseHead,
    ) -> Result<Option<ParsedResponse>, HeadError> {
        let window = limit_window(input, 0, &self.limits);
        let Some(end) = self.end.find(window)? else {
            check_incomplete(window, 0, &self.end, &self.limits)?;
            return Ok(None);
        };
        let parsed = parse_response(&input[..end], to, &self.limits, head)?;
        self.end = SectionEnd::default();
        Ok(Some(parsed))
    }
}

/// The part of `input` that the head may fill: nothing beyond it is looked at, so that a head is refused
/// alike whether it came in one read or in many.
fn limit_window<'a>(input: &'a [u8], start: usize, limits: &Limits) -> &'a [u8] {
    &input[..input.len().min(start.saturating_add(limits.max_head_bytes))]
}

fn check_incomplete(window: &[u8], start: usize, end: &SectionEnd, limits: &Limits) -> Result<(), HeadError> {
    let limit = limits.max_head_bytes;
    if window.len() - start < limit {
        Ok(())
    } else if end.line_start() == start {
        Err(HeadError::FirstLineTooLong { limit })
    } else {
        Err(HeadError::HeadTooLarge { limit })
    }
}

/// `text`: a whole head, from the request line to the empty line.
fn parse_request(text: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Parsed, HeadError> {
    head.clear();
    let (line, block) = split_first_line(text);
    let (method, target, version) = parse_request_line(line)?;
    head.version = version;
    head.set_method(method);
    head.set_target(target);
    if version == Version::Http10 && !limits.accept_http10 {
        return Err(HeadError::Http10NotAccepted);
    }
    check_target(head)?;

    let mut facts = Facts::default();
    parse_fields(block, limits.max_fields, &mut head.fields, &mut facts)?;
    check_host(head, &facts)?;
    let mut framing = message_framing(version, &facts)?.unwrap_or_default();
    let connect = head.is_connect();
    if connect {
        if !framing.is_empty() {
            return Err(HeadError::ConnectBody);
        }
        framing = Framing::None;
    }
    let http11 = version == Version::Http11;
    Ok(Parsed {
        consumed: text.len(),
        framing,
        keep_alive: keeps_alive(version, &facts),
        // RFC 9110 §10.1.1: ignored in HTTP/1.0, and meaningless without content.
        expect_continue: http11 && facts.expect_continue && !framing.is_empty(),
        upgrade: http11 && !connect && facts.connection_upgrade && facts.upgrade,
        connect,
    })
}

/// The first line without its CRLF, and the field lines without the empty line after them.
fn split_first_line(text: &[u8]) -> (&[u8], &[u8]) {
    // `SectionEnd` has found a CR before each LF; the first line is not empty, so that it is not the last.
    let line_feed = memchr::memchr(b'\n', text).unwrap_or(text.len());
    (&text[..line_feed - 1], &text[line_feed + 1..text.len() - 2])
}

fn parse_request_line(line: &[u8]) -> Result<(&[u8], &[u8], Version), HeadError> {
    if memchr::memchr(b'\r', line).is_some() {
        return Err(HeadError::BareCarriageReturn);
    }
    let after_method = memchr::memchr(b' ', line).ok_or(HeadError::RequestLine)?;
    let after_target = memchr::memrchr(b' ', line).ok_or(HeadError::RequestLine)?;
    if after_method == after_target {
        return Err(HeadError::RequestLine);
    }
    let method = &line[..after_method];
    let target = &line[after_method + 1..after_target];
    if !syntax::is_token(method) || !syntax::is_target(target) {
        return Err(HeadError::RequestLine);
    }
    let version = parse_version(&line[after_target + 1..])?.ok_or(HeadError::RequestLine)?;
    Ok((method, target, version))
}

/// `None`: not a version at all.
fn parse_version(text: &[u8]) -> Result<Option<Version>, HeadError> {
    match text {
        b"HTTP/1.1" => Ok(Some(Version::Http11)),
        b"HTTP/1.0" => Ok(Some(Version::Http10)),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(HeadError::Version)
        }
        _ => Ok(None),
    }
}

/// RFC 9112 §3.2: which method may have which form of target.
fn check_target(head: &RequestHead) -> Result<(), HeadError> {
    if head.is_connect() {
        return match syntax::split_host_and_port(head.target()) {
            Some((host, Some(port))) if !host.is_empty() && !port.is_empty() => Ok(()),
            _ => Err(HeadError::ConnectTarget),
        };
    }
    let good = match head.target() {
        b"*" => head.method() == b"OPTIONS",
        [b'/', ..] => true,
        _ => {
            head.is_absolute_form()
                && !head.authority().is_empty()
                && !head.authority().starts_with(b":")
                && syntax::is_host_and_port(head.authority())
        }
    };
    if good { Ok(()) } else { Err(HeadError::Target) }
}

/// RFC 9112 §3.2: exactly one Host in HTTP/1.1, at most one before. With an absolute-form target the
/// Host field is replaced by the target's authority (§3.2.2), so that no one after us can prefer the other.
fn check_host(head: &mut RequestHead, facts: &Facts) -> Result<(), HeadError> {
    match facts.hosts {
        0 if head.version == Version::Http10 => return Ok(()),
        0 => return Err(HeadError::MissingHost),
        1 => {}
        _ => return Err(HeadError::DuplicateHost),
    }
    let host = head.fields.get("host").unwrap_or_default();
    if !syntax::is_host_and_port(host) {
        return Err(HeadError::InvalidHost);
    }
    if head.is_absolute_form() && host != head.authority() {
        head.align_host_with_target();
    }
    Ok(())
}

/// The framing that the fields announce (RFC 9112 §6), if they do.
fn message_framing(version: Version, facts: &Facts) -> Result<Option<Framing>, HeadError> {
    match (facts.transfer_encoding, facts.content_length) {
        (None, None) => Ok(None),
        (None, Some(length)) => Ok(Some(Framing::Length(length))),
        (Some(_), Some(_)) => Err(HeadError::ContentLengthWithTransferEncoding),
        (Some(_), None) if version == Version::Http10 => Err(HeadError::TransferEncodingInHttp10),
        (Some(TransferEncoding::Chunked), None) => Ok(Some(Framing::Chunked)),
        (Some(TransferEncoding::Unknown), None) => Err(HeadError::UnknownTransferCoding),
        (Some(TransferEncoding::Malformed), None) => Err(HeadError::InvalidTransferEncoding),
    }
}

/// RFC 9112 §9.3.
fn keeps_alive(version: Version, facts: &Facts) -> bool {
    !facts.close && (version == Version::Http11 || facts.keep_alive)
}

/// `text`: a whole head, from the status line to the empty line.
fn parse_response(
    text: &[u8],
    to: ResponseTo,
    limits: &Limits,
    head: &mut ResponseHead,
) -> Result<ParsedResponse, HeadError> {
    head.clear();
    if text == b"\r\n" {
        return Err(HeadError::StatusLine);
    }
    let (line, block) = split_first_line(text);
    parse_status_line(line, head)?;
    let mut facts = Facts::default();
    parse_fields(block, limits.max_fields, &mut head.fields, &mut facts)?;
    let announced = message_framing(head.version, &facts)?;

    let status = head.status();
    let tunnel = status == 101 || (to.connect && (200..300).contains(&status));
    if status == 101 && !to.upgrade {
        return Err(HeadError::UnsolicitedUpgrade);
    }
    let never_has_body = status < 200 || status == 204;
    // RFC 9112 §6.3, in its order.
    let framing = if to.head || never_has_body || status == 304 || tunnel {
        Framing::None
    } else {
        announced.unwrap_or(Framing::UntilClose)
    };
    if tunnel {
        // RFC 9110 §9.3.6: ignored by the client, so not shown to it.
        head.fields.remove("content-length");
        head.fields.remove("transfer-encoding");
    }
    // A server that announces a body where none can be may also send it.
    let stray_body = never_has_body && announced.is_some_and(|framing| !framing.is_empty());
    Ok(ParsedResponse {
        consumed: text.len(),
        framing,
        keep_alive: keeps_alive(head.version, &facts) && framing != Framing::UntilClose && !tunnel && !stray_body,
        interim: head.is_interim(),
        tunnel,
    })
}

fn parse_status_line(line: &[u8], head: &mut ResponseHead) -> Result<(), HeadError> {
    if memchr::memchr(b'\r', line).is_some() {
        return Err(HeadError::BareCarriageReturn);
    }
    let (version, rest) = line.split_at_checked(8).ok_or(HeadError::StatusLine)?;
    head.version = parse_version(version)?.ok_or(HeadError::StatusLine)?;
    let (code, reason) = match rest {
        // The space before an empty reason is required by RFC 9112 §4, and left out by many.
        [b' ', a, b, c] => ([*a, *b, *c], &b""[..]),
        [b' ', a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
        _ => return Err(HeadError::StatusLine),
    };
    if !code.iter().all(u8::is_ascii_digit) || code[0] == b'0' || !syntax::is_field_value(reason) {
        return Err(HeadError::StatusLine);
    }
    head.set_status(code.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')));
    head.set_reason(reason);
    Ok(())
}
